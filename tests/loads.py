"A long day: 100,000 clips through a pass and an epoch, and many epochs of training with worker processes; what grows meanwhile"
import gc,time
from pathlib import Path

import numpy as np
import psutil
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders,Datasets,TfmdDL
from fastai.losses import CrossEntropyLossFlat
from fastai.learner import Learner
from specnorm_fastai.all import AudioConfig,AudioTensor,AudioToSpec,collect_stats,small_cnn
from specnorm_fastai.data import AudioDL

class Clip:
    "A clip cut out of one stretch of noise"
    def __init__(self, n=400): self.bank,self.n = torch.randn(1, 3*n, generator=torch.Generator().manual_seed(0))*.1,n
    def __call__(self, i): k = i*7919%(2*self.n); return AudioTensor(self.bank[:,k:k+self.n], sr=16000)
class Label:
    def __call__(self, i): return torch.tensor(i%2)

def measure():
    "Resident memory, open files and threads of this process, its child processes, and files in shared memory"
    gc.collect()
    p = psutil.Process()
    return dict(rss_mb=round(p.memory_info().rss/2**20, 1), files=p.num_fds(), threads=p.num_threads(), processes=len(p.children(recursive=True)),
                shm=len(list(Path('/dev/shm').glob('torch_*'))) if Path('/dev/shm').is_dir() else 0)

def _dl(n, bs, workers, cls=TfmdDL, shuffle=False, **kw):
    return cls(Datasets(list(range(n)), [[Clip()],[Label()]], n_inp=1), bs=bs, num_workers=workers, shuffle=shuffle, after_batch=[AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=64, hop_length=32))], **kw)

def many_clips(n=100_000, workers=2):
    "Seconds and growth of memory in MB of a pass of statistics and of an epoch's data"
    res = {}
    collect_stats(_dl(64, 64, 0), source=False, progress=False)
    for what in ('statistics','epoch'):
        dl,a,t = _dl(n, 256, workers),measure(),time.perf_counter()
        if what=='statistics': assert collect_stats(dl, source=False, progress=False).n_clips==n
        else: assert sum(len(b[0]) for b in dl)==n
        secs,b = time.perf_counter()-t,measure()
        res[what] = dict(clips=n, workers=workers, seconds=round(secs, 1), grown_mb=round(b['rss_mb']-a['rss_mb'], 1), files=b['files']-a['files'], shm=b['shm']-a['shm'])
    return res

class _Watch(Callback):
    def __init__(self): self.seen = []
    def after_epoch(self): self.seen.append(measure())

def many_epochs(epochs=50, workers=2, persistent=True, clips=256):
    "What `measure` says after each epoch of a small training"
    kw = dict(cls=AudioDL, persistent_workers=persistent) if persistent else {}
    dls = DataLoaders(_dl(clips, 32, workers, shuffle=True, **kw), _dl(clips//4, 32, workers, **kw), device=torch.device('cpu'))
    watch = _Watch()
    learn = Learner(dls, small_cnn(2, 1, width=4), loss_func=CrossEntropyLossFlat())
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-3, cbs=watch)
    assert len(watch.seen)==epochs
    return watch.seen

def growth(seen, warm=None):
    "Of each number: what it grew by from the end of the warm-up to the end. Memory by the slope of a line, times the epochs"
    warm = max(2, len(seen)//5) if warm is None else warm
    late = seen[warm:]
    res = {k:late[-1][k]-late[0][k] for k in late[0] if k!='rss_mb'}
    y = np.array([s['rss_mb'] for s in late])
    res['rss_mb'] = round(float(np.polyfit(np.arange(len(y)), y, 1)[0]*(len(y)-1)), 2) if len(y)>1 else 0.
    return res

def all_rounds(clips=100_000, epochs=50, log=print):
    res = dict(many_clips=many_clips(clips))
    log(f"{clips} clips: {res['many_clips']}")
    for p in (True,False):
        seen = many_epochs(epochs, persistent=p)
        res[f"{epochs} epochs, {'workers that stay' if p else 'new workers each epoch'}"] = dict(epochs=epochs, first=seen[0], after_warm_up=seen[max(2, epochs//5)], last=seen[-1], growth=growth(seen))
        log(f"{epochs} epochs, persistent={p}: {growth(seen)}")
    return res
