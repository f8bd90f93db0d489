"""Views of log-mel spectrograms and of waveforms, made for a whole batch at once."""
