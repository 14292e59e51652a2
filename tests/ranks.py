"What the processes of test_distributed.py do: torchrun starts two, and in worlds of 1, 2 and 4 each rank runs every case and writes down what it got"
import specnorm_fastai.all,sys
loaded = [m for m in ('fastai.distributed','accelerate','dask','distributed') if m in sys.modules]
import faulthandler,multiprocessing,os,pickle,random,time
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

import numpy as np,pandas as pd,torch
from fastai.basics import CategoryBlock,ColReader,DataBlock,Learner,nn
from fastai.callback.core import Callback,CancelFitException
from fasttransform.transform import Transform
from specnorm_fastai.all import *
from specnorm_fastai import core,stats

class Spoil(Transform):
    "Inf in one frame of the clips whose names hold one of some words"
    order = 90
    def __init__(self, *words): self.words = words
    def encodes(self, x:AudioSpectrogram):
        if any(w in x.fn for w in self.words): x[...,3] = float('inf')
        return x

class Note(Transform):
    "Take some time, and leave a file behind each time that a clip is opened"
    order = -9
    def __init__(self, folder, seconds=0.): self.folder,self.seconds = str(folder),seconds
    def encodes(self, x:AudioTensor):
        time.sleep(self.seconds)
        Path(self.folder, f'{Path(x.fn).name}@{os.getpid()}@{time.time_ns()}').touch()
        return x

class Measured(Callback):
    "End a `fit` when its statistics are there"
    order = -4
    def before_fit(self): raise CancelFitException

class Here:
    "Stands for a Dask client"
    def ncores(self): return {'here':1}
    def submit(self, f, *args, pure=None):
        res = Future()
        res.set_result(f(*[[o.result() for o in a] if isinstance(a, list) and isinstance(a[0], Future) else a for a in args]))
        return res

def rank(): return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
def table(path): return pd.read_csv(path/'meta'/'synthetic.csv')
def audio(path): return [path/'audio'/f for f in table(path).filename]
def to_spec(): return AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=256, n_mels=16))
def broken(path): return path.parent/'broken.wav'

def loaders(path, item_tfms=None, batch_tfms=()):
    item_tfms = [AudioNormalize(),to_spec()] if item_tfms is None else item_tfms
    block = DataBlock(blocks=(AudioBlock,CategoryBlock), get_x=ColReader('filename',pref=path/'audio'), get_y=ColReader('category'),
                      splitter=CrossValidationSplitter(), item_tfms=item_tfms, batch_tfms=list(batch_tfms))
    return block.dataloaders(table(path), bs=7, num_workers=0)

def fitted(dls, model, **kwargs):
    rec = StatsRecorder('frequency', quantiles=True)
    learn = Learner(dls, model, loss_func=nn.CrossEntropyLoss(), cbs=[StatsCallback(rec, **kwargs),Measured()])
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert torch.equal(rec.mean, learn.stats.result.mean) and rec.nobservations==learn.stats.result.n_clips
    return learn.stats.result

def cases(path):
    "What needs all ranks, by name"
    dls,on_batch,files,spec,model = loaders(path),loaders(path, [], [AudioNormalize(),to_spec()]),audio(path),[to_spec()],nn.Linear(1,8)
    with_broken,spoilt = [*files[:5],broken(path),*files[5:40]],[*spec,Spoil('-00001-','-00004-')]
    return {
        'loaders':    lambda: collect_stats(dls),
        'callback':   lambda: fitted(on_batch, model),
        'frac':       lambda: collect_stats(dls, frac=.3, seed=3),
        'tol':        lambda: fitted(dls, model, tol=1., seed=4),
        'tol frac':   lambda: collect_stats(dls, tol=1e-3, frac=.7, seed=5),
        'source':     lambda: collect_stats(dls, frac=.6, source='category'),
        'files':      lambda: collect_stats(files[:61], tfms=spec),
        'three':      lambda: collect_stats(files[:3], tfms=spec),
        'one':        lambda: collect_stats(files[:1], tfms=spec),
        'skip':       lambda: collect_stats(files[:10], tfms=spoilt, on_bad='skip'),
        'inf':        lambda: collect_stats(files[:10], tfms=spoilt),
        'broken':     lambda: collect_stats(with_broken, tfms=spec),
        'broken tol': lambda: collect_stats(with_broken, tfms=spec, tol=1e-3, seed=1),
        'client':     lambda: collect_stats(files[:3], tfms=spec, client=Here(), quantiles=False),
        'after':      lambda: collect_stats(files[:9], tfms=spec, quantiles=False),
    }

def unlike(path):
    "What ranks must not do together"
    files,spec = audio(path),[to_spec()]
    return {
        'other clips':    lambda: collect_stats(files[(r:=rank()):r+9], tfms=spec),
        'more clips':     lambda: collect_stats(files[:60+5*rank()], tfms=spec, tol=1e-3),
        'no clips':       lambda: collect_stats(files[:9] if rank()==0 else [], tfms=spec),
        'another sample': lambda: collect_stats(files, tfms=spec, frac=.3, seed=rank()),
    }

def alone(path):
    "What needs no other rank"
    def set_up(): loaders(path, None, [norm:=SpecNormalize(axes='frequency')]); return norm.stats
    dls,model = loaders(path),nn.Linear(1,8)
    return {'set-up':set_up, 'callback':lambda: fitted(dls, model, distributed=False)}

opened,_read = [],core._read_audio
def _noted(path, *args): opened.append(Path(path).name); return _read(path, *args)
def random_state(): return random.getstate(),np.random.get_state()[1].tobytes(),np.random.get_state()[2:],torch.get_rng_state().numpy().tobytes()

def run(case):
    "What a case gave, or its error; the files that it opened; whether random states stayed; seconds"
    core._read_audio,first = _noted,stats._first_look
    stats._first_look = 32  # the train split has 64 clips
    opened.clear()
    before,t,got,err = random_state(),time.time(),None,None
    try: got = case()
    except Exception as e: err = f'{type(e).__name__}: {e}'
    finally: core._read_audio,stats._first_look = _read,first
    return dict(stats=got, error=err, opened=list(opened), kept=random_state()==before, seconds=time.time()-t)

def run_world(path, common, out, r, world, init={}):
    "Run cases as one rank of a world"
    import torch.distributed as dist
    def start(seconds, **kwargs): dist.init_process_group('gloo', timeout=timedelta(seconds=seconds), **kwargs)
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(90, exit=True)  # a rank that hangs ends, and says where
    random.seed(r); np.random.seed(r); torch.manual_seed(r)  # random states of its own
    start(50, **init)
    res = dict({k:run(f) for k,f in common.items()}, loaded=loaded)
    dist.barrier()
    if world==2 and r==1: res['alone'] = {k:run(f) for k,f in alone(path).items()}
    dist.barrier()
    dist.destroy_process_group()
    if world==2:
        for k,f in unlike(path).items():  # each in a group of its own, as an error may leave it in disorder
            start(8, init_method=f'file://{out}/{k}', rank=r, world_size=2)
            res[k] = run(f)
            dist.destroy_process_group()
    (out/f'{world}-{r}.pkl').write_bytes(pickle.dumps(res))

def main(path, out):
    common,r = cases(path),int(os.environ['RANK'])
    def of(r, world): run_world(path, common, out, r, world, dict(init_method=f'file://{out}/{world}', rank=r, world_size=world))
    if r: of(0, 1)
    else:  # forked, as importing everything takes longest
        ps = [multiprocessing.get_context('fork').Process(target=of, args=(i,4)) for i in range(4)]
        for p in ps: p.start()
        for p in ps: p.join()
    run_world(path, common, out, r, 2)  # the world that torchrun made

if __name__=='__main__': main(*map(Path, sys.argv[1:]))
