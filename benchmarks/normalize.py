"Normalization of one batch: by given statistics, and by a sliding window"
import torch

from specnorm_fastai.core import AudioSpectrogram
from specnorm_fastai.fast import no_kernels
from specnorm_fastai.functional import normalize
from specnorm_fastai.stats import _keep_memory
from specnorm_fastai.transforms import SpecNormalize
from specnorm_fastai.ways_tfms import SlidingNormalize
from .timing import interleaved,row

def _sliding(o, x):
    from torchaudio.transforms import SlidingWindowCmn
    res,y = [],x.plain()
    turned = y.transpose(-1,-2).contiguous()  # torchaudio's takes (..., time, freq)
    for w in (3,) if o.tiny else (10,100,300):
        rival,ours = SlidingWindowCmn(cmn_window=w, center=True, norm_vars=True),SlidingNormalize(window=w, mask=None)
        name = f'torchaudio SlidingWindowCmn({w})'
        def without():
            with no_kernels(): return ours(x)
        with torch.no_grad(): t = interleaved({'x.clone()':y.clone, 'ours':lambda: ours(x), name:lambda: rival(turned), **({'without kernels':without} if w==300 else {})}, rounds=o.rounds(11), warmup=1, budget=o.budget(8), least=3, before=y.sum, together=.02)
        res.append(row(f'SlidingNormalize, {w} frames', 'centred window, mean and std', t, 'ours', 'x.clone()', name, at_most=6, at_least=5))
        if 'without kernels' in t: res.append(row(f'SlidingNormalize, {w} frames, without kernels', 'what is done where numba is missing', t, 'without kernels', 'x.clone()', name))
    return res

def run(o):
    _keep_memory()  # clearing new pages takes longer than the work, and varies most
    shape = (4,1,21,41) if o.tiny else (64,1,201,401)
    x = AudioSpectrogram.create(torch.randn(shape)*20-40, settings=dict(units='dB', sr=16000))
    y = x.plain()
    m,s = torch.randn(1,1,shape[2],1)-40,torch.rand(1,1,shape[2],1)+20
    n = SpecNormalize(m, s, axes='frequency')
    enc = n(x)
    own,ni = x.clone(),SpecNormalize(m, s, axes='frequency', inplace=True)
    cands = {'x.clone()':y.clone, '(x-m)/s':lambda: (y-m)/s, 'normalize':lambda: normalize(y, m, s), 'encode':lambda: n(x), 'decode':lambda: n.decode(enc), 'inplace':lambda: ni(own)}
    t = interleaved(cands, rounds=o.rounds(41), budget=o.budget(15), before=y.sum, together=.02)
    made = lambda name,what,key,most: row(name, what, t, key, 'x.clone()', '(x-m)/s', at_most=most)
    res = [made('SpecNormalize, encode', 'one statistic for each frequency', 'encode', 1.3), made('SpecNormalize, decode', 'back again', 'decode', 1.3),
        made('SpecNormalize, in place', 'into the same memory', 'inplace', 1.05), made('normalize', 'on a plain tensor', 'normalize', 1.3)]
    return res+_sliding(o, x)
