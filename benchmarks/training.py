"Training: seconds of a batch for each setting of the network, and what the data path adds to an epoch"
import tempfile,time
from pathlib import Path

import torch
import torch.nn.functional as F
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.vision.models.xresnet import xresnet18

from specnorm_fastai.features import AudioConfig,AudioToSpec
from specnorm_fastai.learner import make_xresnet_grayscale,spec_learner,spec_model
from specnorm_fastai.transforms import SpecNormalize
from . import clips
from .datapath import our_block,with_cpu
from .rivals import StandardSpec,ToDB,published_block
from .timing import interleaved,row,skipped

def _step(model, x, y, half=False):
    opt = torch.optim.AdamW(model.parameters(), 1e-4)
    def f():
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=half): p = model(x)
        F.cross_entropy(p.float(), y).backward()
        opt.step(); opt.zero_grad()
    return f

def _compiler():
    import shutil
    return next((c for c in ('g++','c++','clang++') if shutil.which(c)), None)

def networks(o, arch, bs, shape, compiled):
    "One training step under each setting"
    x,y = torch.randn(bs, 1, *shape),torch.randint(0, 10, (bs,))
    def made(last=False, half=False, comp=False):
        torch.manual_seed(0)
        m = spec_model(arch, 10).train()
        if last: m = m.to(memory_format=torch.channels_last)
        return _step(torch.compile(m) if comp else m, x, y, half)
    cands = {'float32':made(), 'channels_last':made(last=True), 'bfloat16':made(half=True), 'bfloat16, channels_last':made(True, True)}
    what = f'{arch}, a batch of [{bs}, 1, {shape[0]}, {shape[1]}]'
    res = []
    if compiled:
        if _compiler():
            cands['torch.compile'] = f = made(True, comp=True)
            t = time.perf_counter(); f(); first = time.perf_counter()-t
        else: res.append(skipped('step, torch.compile', what, 'no C++ compiler'))
    cands,cpu = with_cpu(cands)
    t = interleaved(cands, rounds=o.rounds(7), warmup=1, budget=o.budget(30), least=2)
    note = lambda k: f'float32, channels_last; the first step, which compiles, took {first:.0f} s' if k=='torch.compile' else ''
    cpu,rival = {k:v[-len(t[k]):] for k,v in cpu.items()},lambda k: None if k=='float32' else 'float32'
    return [row(f'step, {k}', what, t, k, rival=rival(k), note=note(k)) for k in cands]+[row(f'step, {k}, CPU seconds', what, cpu, k, rival=rival(k)) for k in cands]+res

class _Made:
    "A loader of batches that are there already"
    def __init__(self, dl): self.batches,self.dl = [tuple(b) for b in dl],dl
    def __iter__(self): return iter(self.batches)
    def __len__(self): return len(self.batches)
    def __getattr__(self, k): return getattr(self.dl, k)

def _epoch(learn, made=False):
    dls = learn.dls
    if made: dls = DataLoaders(_Made(dls.train), dls.valid)
    def f():
        opt = torch.optim.AdamW(learn.model.parameters(), 1e-4)
        m = learn.model.train()
        for cb in learn.cbs:
            if type(cb).__name__=='ChannelsLast': m.to(memory_format=torch.channels_last)
        for x,y in dls.train:
            F.cross_entropy(m(x.as_subclass(torch.Tensor)), y.as_subclass(torch.Tensor)).backward(); opt.step(); opt.zero_grad()
    return f

def epochs(o, path, of, mel, cache):
    "Seconds for each clip of an epoch: ours, the published experiment's, and each on batches made beforehand"
    bs,n = (4,8) if o.tiny else (32,64 if o.quick else 224) if mel else (16,64)
    df,kw = clips.table(path, n+1),dict(bs=bs, num_workers=0 if o.tiny else 2)
    cfg = dict(n_fft=1024, hop_length=320, n_mels=64)
    to_spec = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(**cfg) if mel else AudioConfig.BasicSpectrogram())
    arch,n_out = ('small','xresnet18')[not o.tiny],df.category.nunique()
    def learner(stay=False, **how): return spec_learner(our_block(path, to_spec=to_spec, norm=[SpecNormalize(-40., 20.)], **how).dataloaders(df, persistent_workers=stay, **kw), arch, n_out=n_out)
    ours,stays,cached,alone = learner(),learner(True),learner(True, cache=cache),learner(cache=cache)
    alone.dls.train.fake_l.num_workers = 0
    for l in (stays,cached): list(l.dls.train)  # the first epoch starts the workers, and fills the cache
    dls = published_block(path, ToDB(**(cfg if mel else {})), norm=[StandardSpec(-40., 20.)]).dataloaders(df, **kw)
    net = spec_model('small', n_out) if o.tiny else make_xresnet_grayscale(xresnet18(pretrained=False, n_out=n_out), n_in=1)
    theirs = Learner(dls, net, loss_func=F.cross_entropy)
    t = interleaved({'ours':_epoch(ours), 'stays':_epoch(stays), 'cached':_epoch(cached), 'alone':_epoch(alone), 'published':_epoch(theirs), 'batches made before':_epoch(ours, True), 'published, made before':_epoch(theirs, True)},
        rounds=o.rounds(3), warmup=0 if o.tiny or not mel else 1, budget=o.budget(40), least=3 if mel and not o.tiny else 1)  # the linear ones take long enough
    k = n//bs*bs
    per = {a:[v/k for v in vs] for a,vs in t.items()}
    name = f"epoch, {'log-mel [1, 64, 251]' if mel else 'linear [1, 201, 401]'}"
    what = f'{arch}, seconds a clip, {k} {of} in batches of {bs}; the start of two workers included'
    whole = lambda v: f'an epoch of 1600 clips would take {1600*sorted(v)[len(v)//2]:.0f} s'
    return [row(name, what, per, 'ours', rival='published', note=f"{whole(per['ours'])}, the published one {1600*sorted(per['published'])[len(per['published'])//2]:.0f} s"),
        row(f'{name}, share of the data path', 'against batches made beforehand', per, 'ours', limit='batches made before', at_most=1.05),
        row(f'{name}, share of it with persistent_workers', 'the second epoch and all later ones', per, 'stays', limit='batches made before', rival='published', at_most=1.05),
        row(f'{name}, share of it with these and a cache', 'the second epoch and all later ones', per, 'cached', limit='batches made before', rival='published', at_most=1.05),
        row(f'{name}, share of it with a cache and no workers', 'num_workers=0', per, 'alone', limit='batches made before', rival='published'),
        row(f'{name}, published, share of the data path', 'against batches made beforehand', per, 'published', limit='published, made before')]

def run(o):
    res = []
    for shape,bs in (((64,251),32),((201,401),16))[:1 if o.quick else 2]:
        if o.tiny: shape,bs = (21,41),4
        res += networks(o, 'small' if o.tiny else 'xresnet18', bs, shape, compiled=not o.quick and shape[0]==64)
        if o.tiny: break
    with tempfile.TemporaryDirectory() as tmp:
        if o.data: path,of = Path(o.data),f'clips of {Path(o.data).name}'
        else: path,of = clips.converted(clips.synthetic(Path(tmp)/'made', 16 if o.tiny else 200), Path(tmp)/'ogg', '.ogg'),'synthetic clips'
        for mel in (True,) if o.quick else (True,False): res += epochs(o, path, of, mel, Path(tmp)/'cache')
    return res
