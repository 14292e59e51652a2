"The suggestion of a way to normalize: exact parts of the variance, the right way where one property dominates, and what must not change it"
import json,time
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import CategoryBlock,ColReader,DataBlock,IndexSplitter
from hypothesis import given,strategies as st
from torch import Tensor

from specnorm_fastai.core import AudioSpectrogram,AudioTensor,get_audio_files
from specnorm_fastai.data import AudioBlock,AudioPadType,ResizeSignal
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.suggest import NormSuggestion,_clip_stats,suggest_normalization,variance_parts
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize
from specnorm_fastai.ways_tfms import RMSNormalize

sr = 16000
mel = AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=160, n_mels=32)

def _curve(hz, db, phase, k=1.5):
    "A smooth filter with a std of about `db` over mel bands"
    at = np.log1p(hz/700)/np.log1p(hz[-1]/700)
    return 2**.5*db*np.cos(2*np.pi*(k*at+phase))

def sounds(n=40, seconds=1.5, fixed=0., colour=0., gain=0., drift=0., silence=0., class_colour=0., class_gain=0., unequal=False, rms=.05, seed=0, channels=1):
    "Clips of noise that goes on and off at a rate which is the class (2 of them), and what is asked for, in dB"
    rng,res = np.random.default_rng(seed),[]
    for i in range(n):
        y = i%2
        k = int(sr*seconds*(rng.uniform(.6, 1) if unequal else 1))
        t = np.arange(k)/sr
        x = rng.normal(size=(channels,k))*np.where((t*(4+4*y)+rng.random())%1<.5, 1., .1)
        hz = np.fft.rfftfreq(k, 1/sr)
        db = _curve(hz, fixed, .2)+_curve(hz, colour, rng.random())+_curve(hz, class_colour, y/2)
        x = np.fft.irfft(np.fft.rfft(x)*10**(db/20), k)
        x *= rms*10**((gain*rng.normal()+class_gain*(2*y-1)+drift*rng.choice([-1,1])*np.linspace(-1,1,k))/20)
        if silence: x[:,int(k*(1-silence)):] = 0
        res.append((AudioTensor(torch.from_numpy(x).float(), sr=sr), f'{y}', f'r{i//4}'))
    return pd.DataFrame(dict(x=range(n), y=[o[1] for o in res], rec=[o[2] for o in res])),[o[0] for o in res]

def make_dls(table, clips, tfms=None, bs=16, item_tfms=(), order=None, cfg=mel, workers=0):
    df = table if order is None else table.iloc[order].reset_index(drop=True)
    df = pd.concat([df, df.iloc[:1]], ignore_index=True)  # the last one is for validation
    block = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=lambda r: clips[r['x']], get_y=ColReader('y'), splitter=IndexSplitter([len(df)-1]), item_tfms=list(item_tfms),
                      batch_tfms=[AudioToSpec.from_cfg(cfg)] if tfms is None else tfms)
    return block.dataloaders(df, bs=bs, num_workers=workers)

def suggest(table, clips, of=None, **kwargs): return suggest_normalization(make_dls(table, clips, **kwargs), progress=False, **(of or {}))

def test_each_property_alone_gets_its_way():
    "One property each, far above the content's: what takes it away, and nothing more, is suggested"
    for way,kw in {'global':{}, 'frequency':dict(fixed=15), 'item':dict(gain=15), 'item+frequency':dict(gain=15, fixed=15, class_colour=8), 'item_frequency':dict(colour=12)}.items():
        s = suggest(*sounds(**kw))
        print(way, s.way, {k:round(v,3) for k,v in s.measured['costs'].items() if v is not None}, s.measured['votes'], {k:round(v,1) for k,v in s.measured['variance'].items()}, s.measured['labels'])
    for kw in (dict(), dict(drift=15), dict(drift=15, seconds=4)):
        s = suggest(*sounds(**{**dict(n=20, seconds=9), **kw}))
        print(kw, s.way, {k:round(v,3) for k,v in s.measured['costs'].items() if v is not None}, s.measured['votes'], {k:round(v,1) for k,v in s.measured['variance'].items()}, s.measured['labels'])
