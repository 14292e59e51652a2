"Memory of a statistics pass above what its loader needs by itself, in batches of 64 spectrograms; it must not grow with the clips"
from .timing import fresh

code = """
import sys,torch
from fastai.data.core import Datasets,TfmdDL
from specnorm_fastai.core import AudioSpectrogram
from specnorm_fastai.fast import _kernels
from specnorm_fastai.recorder import StatsRecorder
from specnorm_fastai.stats import collect_stats,stats_pass
how,n,shape,bs = sys.argv[1],int(sys.argv[2]),tuple(map(int, sys.argv[3].split('x'))),int(sys.argv[4])
torch.set_num_threads(1)
bank = torch.randn(shape[0],shape[1],2*shape[2])*20-40
def clip(i): k = i%shape[2]; return AudioSpectrogram.create(bank[...,k:k+shape[2]].clone(), settings=dict(sr=16000))
dl = TfmdDL(Datasets(list(range(n)), [[clip]]), bs=bs, num_workers=0)
def hwm(): return next(int(l.split()[1])*1024 for l in open('/proc/self/status') if l.startswith('VmHWM'))
if k:=_kernels(): k.load()  # code, which is loaded once, is no matter of batches or clips
list(stats_pass(TfmdDL(Datasets(list(range(bs)), [[clip]]), bs=bs, num_workers=0), progress=False))
try: open('/proc/self/clear_refs','w').write('5')
except OSError: pass
if how=='loader':
    for x in stats_pass(dl, progress=False): pass
elif how=='recorder': collect_stats(dl, StatsRecorder('frequency'), mask=None, source=False, progress=False)
else: collect_stats(dl, mask=None, source=False, progress=False)
print(hwm())
"""

def run(o):
    shape,bs = ((1,21,41),8) if o.tiny else ((1,201,401),64)
    batch = bs*4*shape[0]*shape[1]*shape[2]
    res,kinds = [],('loader','collect_stats') if o.tiny else ('loader','recorder','collect_stats')
    for n in (16,) if o.tiny else (100,1000) if o.quick else (100,1000,5000):
        peak = {k:[int(fresh(code, k, n, 'x'.join(map(str, shape)), bs)) for _ in range(1 if o.tiny else 3)] for k in kinds}
        for k in kinds[1:]:
            what = dict(recorder='one StatsRecorder', collect_stats='SpecStats, with histograms')[k]
            above = max((min(peak[k])-min(peak['loader']))/batch, 0.)
            res.append(dict(name=f'{what}, {n} clips', what=f'loader alone {min(peak["loader"])/2**20:.0f} MB at its peak, one batch {batch/2**20:.1f} MB', clips=n, batches=above,
                peak_mb=min(peak[k])/2**20, targets=dict(batches=1.3), met=above<=1.3, rounds=len(peak[k]), note=''))
    return res
