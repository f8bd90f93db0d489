"""Why a file is not a usable clip."""


class AudioProblem(Exception):
    """A file is not a usable clip; the message is a short reason without the file's name."""


TRUNCATED = "truncated: it holds less audio than its header says"
