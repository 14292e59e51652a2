"How time grows with clips, workers, batch size and n_fft: a pass over short clips that are made as they are asked for"
import time

import numpy as np
import torch
from fastai.data.core import Datasets,TfmdDL

from specnorm_fastai.core import AudioTensor
from specnorm_fastai.features import AudioConfig,AudioToSpec
from specnorm_fastai.recorder import StatsRecorder
from specnorm_fastai.stats import collect_stats

class Clip:
    "A clip cut out of one stretch of noise"
    def __init__(self, n): self.bank,self.n = torch.randn(1, 3*n)*.1,n
    def __call__(self, i): k = i*7919%(2*self.n); return AudioTensor(self.bank[:,k:k+self.n], sr=16000)

def seconds(clips, samples=1600, workers=0, bs=64, n_fft=256):
    "Of one pass"
    cfg = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=n_fft, hop_length=n_fft//2))
    dl = TfmdDL(Datasets(list(range(clips)), [[Clip(samples)]]), bs=bs, num_workers=workers, after_batch=[cfg])
    t = time.perf_counter(); collect_stats(dl, StatsRecorder('frequency'), mask='padding', source=False, progress=False)
    return time.perf_counter()-t

def run(o):
    many = (20,40) if o.tiny else (100,1000,5000) if o.quick else (100,1000,10000)
    n = 20 if o.tiny else 500 if o.quick else 2000
    sweeps = [(f'clips, {w} workers', 'clips', [(c,dict(clips=c, workers=w)) for c in (*many, *((100000,) if w==2 and not o.quick else ())) if not (o.tiny and w)]) for w in (0,1,2)]
    sweeps += [('batch size', 'bs', [(b,dict(clips=n, bs=b)) for b in ((1,4) if o.tiny else (1,4,16,64,256))]),
        ('n_fft, clips of 1 s', 'n_fft', [(f,dict(clips=8 if o.tiny else n//4, samples=16000, n_fft=f)) for f in ((256,512) if o.tiny else (256,512,1024,2048,4096))])]
    seconds(16)  # warm
    res = []
    for name,x,runs in sweeps:
        if not runs: continue
        pts = [(v,kw,min(seconds(**kw) for _ in range(1 if o.quick or kw['clips']>5000 else 3))) for v,kw in runs]
        a,b = np.log([p[0] for p in pts]),np.log([p[2] for p in pts])
        res.append(dict(name=name, axis=x, points=[dict(x=v, seconds=t, us_per_clip=1e6*t/kw['clips']) for v,kw,t in pts], slope=float(np.polyfit(a, b, 1)[0]),
            last_slope=float((b[-1]-b[-2])/(a[-1]-a[-2])), met=None))
    return res

def plot(rows, to):
    "Seconds over each size, both axes logarithmic"
    from matplotlib.figure import Figure
    fig = Figure(figsize=(9,2.8), layout='constrained')
    axs = fig.subplots(1, 3)
    for r in rows:
        ax = axs[('clips','bs','n_fft').index(r['axis'])]
        ax.loglog([p['x'] for p in r['points']], [p['seconds'] for p in r['points']], 'o-', ms=3, lw=1, label=r['name'])
    for ax,t,k in zip(axs, ('clips','batch size','n_fft'), ('clips','bs','n_fft')):
        at = sorted({p['x'] for r in rows if r['axis']==k for p in r['points']})
        ax.set_xticks(at, [f'{v:,}' for v in at], fontsize=8); ax.minorticks_off()
        lo,hi = ax.get_ylim()
        if hi<10*lo: ax.set_ylim(hi/20, hi*1.5)  # a whole decade at least, so that noise looks as small as it is
        ax.set_xlabel(t); ax.set_ylabel('seconds of a pass'); ax.grid(alpha=.3)
    axs[0].legend(fontsize=7)
    fig.savefig(to, dpi=80)
