"Every public name: `from fastai.vision.all import *`, then `from specnorm_fastai.all import *`"
from .core import *
from .functional import *
from .features import *
from .recorder import *
from .specstats import *
from .stats import *
from .transforms import *
from .data import *
from .augment import *
from .callback import *
from .drift import *
from .learner import *
from .compare import *
