"""Files of this field, in and out: corpora, topics, runs, judgments. Ids are str; every error names file and line."""

from .corpus import Corpus, JsonlCorpus, open_corpus
from .runs import Requests, read_requests, read_run, write_requests, write_run
from .topics import read_qrels, read_topics

__all__ = ["Corpus", "JsonlCorpus", "Requests", "open_corpus", "read_qrels", "read_requests", "read_run"]
__all__ += ["read_topics", "write_requests", "write_run"]
