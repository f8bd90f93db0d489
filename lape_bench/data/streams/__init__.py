"""Audio in shards (tar files, Parquet files) that is read and decoded when it is needed, without a decoded copy."""
