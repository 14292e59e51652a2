"Where the time of one clip goes: CPU milliseconds of each step, in one process"
import tempfile,time
from pathlib import Path

import torch
from fasttransform.transform import Pipeline

from specnorm_fastai.core import AudioTensor
from specnorm_fastai.data import DownmixMono,Resample,ResizeSignal
from specnorm_fastai.features import AudioConfig,AudioToSpec
from specnorm_fastai.recorder import StatsRecorder
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize
from . import clips
from .datapath import our_block
from .timing import row

def _cpu(f, repeats, n):
    "CPU seconds of `f()` for each of `n` items, a list with one entry a repeat; and its last result"
    res = []
    for _ in range(repeats):
        t = time.process_time(); out = f()
        res.append((time.process_time()-t)/n)
    return res,out

def _items(dl, files, steps, repeats):
    "The steps of each item one after the other, then the same item as the loader makes it: CPU seconds for an item, one column for each of them, one row a repeat"
    res,mark = [],time.process_time
    for _ in range(repeats):
        sums = [0.]*(len(steps)+1)
        for i,x in enumerate(files):
            for k,f in enumerate(steps): t = mark(); x = f(x); sums[k] += mark()-t
            t = mark(); dl.do_item(i); sums[-1] += mark()-t
        res.append([v/len(files) for v in sums])
    return list(map(list, zip(*res)))

def run(o):
    rows,reps = [],1 if o.tiny else 3 if o.quick else 7
    def note(name, what, v): rows.append(row(name, what, {'ours':v}, 'ours'))
    with tempfile.TemporaryDirectory() as tmp:
        tmp,n = Path(tmp),8 if o.tiny else 64
        src = Path(o.data) if o.data else clips.synthetic(tmp/'made', n)
        path = src if o.data else clips.converted(src, tmp/'ogg', '.ogg')
        df = clips.table(path, n)
        files = [path/'audio'/f for f in df.filename]
        was = torch.get_num_threads(); torch.set_num_threads(1)  # a worker has one thread
        try:
            dl = our_block(path).dataloaders(df, bs=n, num_workers=0).train
            dl.dataset.set_split_idx(1)
            crop = ResizeSignal(5000)
            steps = [('decode','AudioTensor.create',AudioTensor.create),('resample','to 16 kHz',Resample(16000)),('mix down','one channel: nothing to do',DownmixMono()),
                ('crop or pad','to 5 s',lambda x: crop(x, split_idx=1))]
            *each,whole = _items(dl, files[1:], [f for *_,f in steps], reps)
            for (name,what,_),t in zip(steps, each): note(name, what, t)
            note('an item, all of it', "as the loader makes it, with its class", whole)
            note("of it fastai's pipelines", 'what the steps above do not explain', [max(w-sum(p), 0) for w,p in zip(whole, zip(*each))])
            items = [dl.do_item(i) for i in range(len(dl.dataset))]
            t,b = _cpu(lambda: dl.create_batch(dl.before_batch(items)), reps, len(items)); note('collate', f'{len(items)} clips', t)
            x = b[0]
            for name,what,f in (('AudioNormalize','in the batch',AudioNormalize()),('spectrogram','BasicSpectrogram, dB',AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram()))):
                t,x = _cpu(lambda: f(x), reps+1, len(x)); note(name, what, t[1:])
            for name,what,f in (('SpecNormalize','given statistics',SpecNormalize(-40., 20.)),('recorder','quantiles and groups, as collect_stats',StatsRecorder((0,3), quantiles=True, groups=128).update)):
                t,_ = _cpu(lambda: f(x), reps+1, len(x)); note(name, what, t[1:])
            if not o.tiny: note('transfer', 'what the main process spends on batches that 2 workers made', _transfer(dl, reps))
        finally: torch.set_num_threads(was)
    return rows

def _transfer(dl, repeats):
    "CPU seconds of the main process for a clip that workers read"
    dl,res = dl.new(bs=8, num_workers=2, after_batch=Pipeline()),[]
    for _ in range(repeats):
        it = iter(dl)
        next(it); t,k = time.process_time(),0  # the start of the workers is not counted
        for b in it: k += len(b[0])
        res.append((time.process_time()-t)/max(k, 1))
    return res
