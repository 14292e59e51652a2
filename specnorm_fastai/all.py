"Every public name: `from fastai.vision.all import *`, then `from specnorm_fastai.all import *`"
# names of Python, fastai and torch that fastaudio.all gave too, and that code written for it relies on
import inspect,math,mimetypes,random,tarfile,warnings
from collections import OrderedDict
from dataclasses import is_dataclass,make_dataclass
from enum import Enum
from functools import partial
from inspect import signature
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from fastcore.basics import ifnone,patch
from fastcore.meta import delegates
from fastcore.xtras import asdict
from fasttransform.transform import Pipeline,Transform
from fastai.data.block import TransformBlock
from fastai.data.external import URLs
from fastai.data.transforms import IntToFloatTensor,get_files
from fastai.torch_core import TensorBase,TensorImageBase
from fastai.vision.augment import RandTransform
from fastai.vision.data import get_grid

from .fast import *
from .core import *
from .cache import *
from .functional import *
from .ways import *
from .mel import *
from .features import *
from .recorder import *
from .specstats import *
from .stats import *
from .transforms import *
from .ways_tfms import *
from .data import *
from .augment import *
from .augment import _shift  # fastaudio's tests import it
from .callback import *
from .drift import *
from .frontend import *
from .learner import *
from .share import *
from .analysis import *
from .suggest import *
from .experiment import *
from .recipe import *
from .compare import *
from .report import *
from .demo import *
from .fastaudio import *
