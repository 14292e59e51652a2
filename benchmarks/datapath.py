"One pass of statistics over a folder, from files to mean and std, with 2 workers: ours against the published experiment's on the same libraries"
import tempfile,time
from pathlib import Path

import pandas as pd

from specnorm_fastai.data import AudioBlock
from specnorm_fastai.features import AudioConfig,AudioToSpec
from specnorm_fastai.recorder import StatsRecorder
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.transforms import AudioNormalize
from fastai.data.block import CategoryBlock,DataBlock
from fastai.data.transforms import ColReader,IndexSplitter
from . import clips
from .rivals import ToDB,published_block,published_pass
from .timing import cpu_seconds,interleaved,row

def our_block(path, seconds=5., norm=(), to_spec=None, n_valid=1, **kwargs):
    block = AudioBlock(crop_signal_to=1000*seconds, **kwargs)
    return DataBlock(blocks=(block,CategoryBlock), get_x=ColReader('filename', pref=Path(path)/'audio'), get_y=ColReader('category'), splitter=IndexSplitter(range(n_valid)),
        batch_tfms=[AudioNormalize(), to_spec or AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram()), *norm])

def _passes(path, o, bs=64):
    "Functions that make the loaders and take the statistics"
    df,kw = clips.table(path),dict(bs=bs, num_workers=0 if o.tiny else 2)
    dls = lambda: our_block(path).dataloaders(df, **kw)
    return {'ours':lambda: collect_stats(dls(), progress=False), 'two recorders':lambda: collect_stats(dls(), StatsRecorder('global'), StatsRecorder('frequency'), progress=False),
        'published':lambda: published_pass(published_block(Path(path), ToDB()).dataloaders(df, drop_last=False, shuffle=True, **kw))}

def with_cpu(cands):
    "The same, noting CPU seconds of each call"
    cpu = {k:[] for k in cands}
    def noted(k, f):
        def g():
            c = cpu_seconds(); f(); cpu[k].append(cpu_seconds()-c)
        return g
    return {k:noted(k, f) for k,f in cands.items()},cpu

def _rows(name, what, cands, rounds, o, target):
    cands,cpu = with_cpu(cands)
    t = interleaved(cands, rounds=rounds, warmup=0 if o.tiny else 1, budget=o.budget(55), least=2)
    n = len(t['ours'])
    res = [row(name, what, t, 'ours', rival='published', at_least=target), row(f'{name}, CPU seconds', 'of all processes together', {k:v[-n:] for k,v in cpu.items()}, 'ours', rival='published')]
    return res+([row(f'{name}, no quantiles', 'StatsRecorders for global and per-frequency statistics alone', t, 'two recorders', rival='published')] if 'two recorders' in t else [])

def run(o):
    res = []
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        n = 8 if o.tiny else 64 if o.quick else 320
        if o.data: source,of = Path(o.data),f'{len(clips.table(o.data))} clips of {Path(o.data).name}'
        else: source,of = clips.synthetic(tmp/'made', n),f'{n} synthetic clips, 3.5 to 5 s'
        for suffix,target in (('.ogg',1.6),('.wav',3.)):
            first = clips.table(source).filename[0]
            path = source if first.endswith(suffix) else clips.converted(source, tmp/suffix[1:], suffix)
            res += _rows(f'statistics of {suffix[1:]} files', of, _passes(path, o), o.rounds(4), o, target)
        path = source if clips.table(source).filename[0].endswith('.ogg') else tmp/'ogg'
        df,kw = clips.table(path),dict(bs=64, num_workers=0 if o.tiny else 2)
        cached = lambda: collect_stats(our_block(path, cache=tmp/'cache').dataloaders(df, **kw), progress=False)
        t = time.perf_counter(); cached()  # writes it
        res.append(row('statistics of ogg files, writing the cache', of, {'ours':[time.perf_counter()-t]}, 'ours'))
        res += _rows('statistics from the cache', of, {'ours':cached, 'published':_passes(path, o)['published']}, o.rounds(4), o, 12.)
        if o.quick: return res
        many = pd.concat([df]*5, ignore_index=True)  # the start of workers counts for less
        t = interleaved({'ours':lambda: collect_stats(our_block(path, cache=tmp/'cache').dataloaders(many, **kw), progress=False),
            'published':lambda: published_pass(published_block(Path(path), ToDB()).dataloaders(many, drop_last=False, shuffle=True, **kw))}, rounds=3, warmup=0, budget=o.budget(30), least=1)
        return res+[row('statistics from the cache, five times as many clips', f'{len(many)} clips, each file five times', t, 'ours', rival='published')]
