"Fixtures of all tests: a synthetic data set, and the shared real data where they are"
import os
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import numpy as np
import pytest
import torch
from hypothesis import settings

if os.environ.get('OMP_NUM_THREADS')=='1': torch.set_num_threads(1)

from specnorm_fastai import fast
fast._least = 0  # the compiled kernels serve small examples too, so that all tests of exactness reach them

# no deadline: the first example of a test may compile or import; a fixed order where CI wants the same tests every time
settings.register_profile('specnorm', deadline=None, max_examples=60, derandomize='CI' in os.environ)
settings.load_profile('specnorm')

@pytest.fixture(scope='session')
def shared():
    "The folder that holds data/ and golden/"
    path = Path(os.environ.get('SPECNORM_SHARED', Path(__file__).resolve().parents[2]/'shared'))
    if not (path/'data').is_dir() and not (path/'golden').is_dir():
        pytest.skip(f"no data/ and golden/ in {path}: set SPECNORM_SHARED to the folder that holds them")
    return path

def _there(path):
    if not path.exists(): pytest.skip(f"not there: {path}")
    return path

@pytest.fixture(scope='session')
def esc10(shared): return _there(shared/'data'/'esc10')

@pytest.fixture(scope='session')
def fsdd(shared): return _there(shared/'data'/'fsdd')

@pytest.fixture(scope='session')
def golden(shared):
    "What fastaudio 1.0.2 made of real clips, see README.md beside it"
    with np.load(_there(shared/'golden'/'fastaudio_1.0.2.npz')) as z: return {k:z[k] for k in z.files}

@pytest.fixture(scope='session')
def synthetic(tmp_path_factory):
    "80 short clips of eight kinds in ESC-50's layout"
    from specnorm_fastai.data import synthetic_audio
    return synthetic_audio(tmp_path_factory.mktemp('synthetic'), n=80)

@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import sys
    if 'matplotlib.pyplot' in sys.modules: sys.modules['matplotlib.pyplot'].close('all')
