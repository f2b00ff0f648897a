"""Training: candidate pools, teachers, and the joint training of item encoder and ranker."""

from mixlm_rerank.systems.sentence_transformers import CrossEncoder as CrossEncoderTeacher
from mixlm_rerank.training.losses import LossWeights
from mixlm_rerank.training.mix import Source, TrainingMix
from mixlm_rerank.training.pools import Pool
from mixlm_rerank.training.stage3 import JointOptions, train_joint
from mixlm_rerank.training.teacher import teacher_scores

__all__ = ["CrossEncoderTeacher", "JointOptions", "LossWeights", "Pool", "Source", "TrainingMix"]
__all__ += ["teacher_scores", "train_joint"]
