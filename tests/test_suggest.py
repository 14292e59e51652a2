"The suggestion of a way to normalize: exact parts of the variance, the right way where one property dominates, and what must not change it"
import json
from functools import lru_cache

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.vision.all import CategoryBlock,ColReader,DataBlock,IndexSplitter
from fasttransform.transform import Transform
from hypothesis import given,strategies as st

from specnorm_fastai.core import AudioSpectrogram,AudioTensor,get_audio_files
from specnorm_fastai.data import AudioBlock,AudioPadType,ResizeSignal
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.suggest import _clip_stats,suggest_normalization,variance_parts
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize
from specnorm_fastai.ways_tfms import RMSNormalize

class SpecAct(Transform):
    "A transform of spectrograms by a method"
    def encodes(self, x:AudioSpectrogram): return self.act(x)

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

@lru_cache(maxsize=None)
def _plain(): return sounds(n=24, seconds=1., unequal=True, colour=6, gain=6, seed=3)

def numbers(m, path=''):
    "All numbers of a measurement by their path, but those of the batch width and the resampling"
    if isinstance(m, dict): return {k:v for n,o in m.items() if n not in ('padding','votes','freqs') for k,v in numbers(o, f'{path}/{n}').items()}
    if isinstance(m, list): return {k:v for n,o in enumerate(m) for k,v in numbers(o, f'{path}/{n}').items()}
    return {path:m} if isinstance(m, (int,float)) and not isinstance(m, bool) else {}

def assert_same(a, b, tol, but=()):
    assert (a.way,[o['way'] for o in a.alternatives])==(b.way,[o['way'] for o in b.alternatives])
    x,y = (numbers(o.measured) for o in (a,b))
    assert x.keys()==y.keys()
    for k in x:
        if not any(o in k for o in but): assert abs(x[k]-y[k])<=tol*max(1, abs(x[k])), (k, x[k], y[k])

# --- the way -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('way,kw', [('global',{}), ('frequency',dict(fixed=15)), ('item',dict(gain=15)), ('item+frequency',dict(gain=15, fixed=15, class_colour=8)), ('item_frequency',dict(colour=12)),
    ('global',dict(seconds=9, n=20)), ('sliding',dict(seconds=9, n=20, drift=15)), ('global',dict(seconds=4, silence=.8)), ('item_frequency',dict(seconds=4, silence=.7, colour=12)), ('item_frequency',dict(colour=12, unequal=True))])
@pytest.mark.parametrize('seed', [0,1])
def test_one_property_far_above_the_rest_gets_the_way_that_takes_it_away(way, kw, seed):
    s = suggest(*sounds(**kw, seed=seed))
    assert s.way==way
    assert s.measured['votes'][way]>.9

def test_what_goes_with_the_class_is_kept():
    "A level or a colour that tells the classes is sound; where no labels are known it is taken for the recording, which is said"
    for kw,without in ((dict(class_gain=15),'item'), (dict(class_colour=12),'item_frequency')):
        data = sounds(**kw)
        s,u = suggest(*data),suggest(*data, of=dict(labels=False))
        assert s.way=='global' and s.measured['labels']['gain' if 'class_gain' in kw else 'colour']>.9
        assert u.way==without and u.measured['labels'] is None and any('no labels are known' in o for o in u.unknown)

def test_silence_changes_nothing_that_is_suggested():
    "Digital silence behind a clip is left out: the numbers are those of the clip without it, up to the frames at its border"
    a,b = suggest(*sounds(seconds=1, colour=8, seed=5)),suggest(*sounds(seconds=2, silence=.5, colour=8, seed=5))
    assert a.way==b.way and a.measured['silence']==0 and .45<b.measured['silence']<.55
    for k in ('tilt','gain','colour'): assert abs(a.measured['variance'][k]-b.measured['variance'][k])<.3*a.measured['variance']['total']**.5

def test_too_short_clips_get_no_sliding_window():
    s = suggest(*sounds(seconds=4, n=20, drift=15))
    assert s.way!='sliding' and 'not compared' in next(a['reason'] for a in s.alternatives if a['way']=='sliding')
    assert suggest(*sounds(seconds=4, n=20, drift=15), of=dict(window=1.)).way=='sliding'

def test_on_a_networks_scale_nothing_is_needed():
    table,clips = sounds()
    s = suggest(table, clips, tfms=[AudioToSpec.from_cfg(mel)])
    mean,std = s.measured['mean'],s.measured['std']
    class Scaled(SpecAct):
        def act(self, x): return ((x-mean)/std).with_settings(units='log')
    s = suggest(table, clips, tfms=[AudioToSpec.from_cfg(mel),Scaled()])
    assert s.way=='none' and s.transforms()==[]

# --- the numbers ---------------------------------------------------------------------------------------------

@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 2), st.integers(1, 5), st.floats(-1e4, 1e4))
def test_the_parts_are_those_of_the_formulas_and_sum_to_the_variance(seed, n, c, f, offset):
    "Against plain loops over clips of unequal length; float64, so to 1e-9 of the size of the squares that cancel"
    rng = np.random.default_rng(seed)
    xs = [offset+10*rng.normal(size=(c,f,1))+rng.normal(size=(c,f,rng.integers(1, 9))) for _ in range(n)]
    k = [x.shape[-1] for x in xs]
    got = variance_parts(k, np.stack([x.mean(-1) for x in xs]), np.stack([x.var(-1) for x in xs]))
    every = np.concatenate(xs, -1)
    want = dict.fromkeys(('tilt','gain','colour','time'), 0.)
    for ch in range(c):
        m_f,m = every[ch].mean(-1),every[ch].mean()
        want['tilt'] += ((m_f-m)**2).mean()/c
        for x,kk in zip(xs, k):
            w,mi = kk/sum(k)/c,x[ch].mean(-1)
            want['gain'] += w*(mi.mean()-m)**2
            want['colour'] += w*((mi-m_f-mi.mean()+m)**2).mean()
            want['time'] += w*x[ch].var(-1).mean()
    for p in want: assert abs(got[p]-want[p])<=1e-9*(100+abs(offset)), p
    assert abs(got['total']-np.mean([every[ch].var() for ch in range(c)]))<=1e-9*(100+abs(offset))

def test_variance_parts_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match='expected shapes'): variance_parts([1,2], np.zeros((3,1,4)), np.zeros((3,1,4)))
    with pytest.raises(ValueError, match='frames that count'): variance_parts([0,0], np.zeros((2,1,4)), np.zeros((2,1,4)))

@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12))
def test_halves_and_stretches_are_those_of_loops(seed, t, stretch):
    rng = np.random.default_rng(seed)
    x,mask = torch.from_numpy(rng.normal(size=(2,2,3,t))),torch.from_numpy(rng.random((2,t))<.8)
    n,mean,var,h1,h2,slow,drift = _clip_stats(x, mask, stretch)
    for i in range(2):
        at = np.flatnonzero(mask[i].numpy()); y = x[i].numpy()[...,at]
        assert n[i]==len(at)
        if not len(at): continue
        np.testing.assert_allclose(mean[i], y.mean(-1), atol=1e-12); np.testing.assert_allclose(var[i], y.var(-1), atol=1e-12)
        if len(at)>1:
            np.testing.assert_allclose(h1[i], y[...,:len(at)//2].mean(-1), atol=1e-12); np.testing.assert_allclose(h2[i], y[...,len(at)//2:].mean(-1), atol=1e-12)
        parts = [[j for j in at if j//stretch==b] for b in range(-(-t//stretch))]
        means = [x[i].numpy()[...,p].mean(-1) if p else None for p in parts]
        want = sum(len(p)*((m-y.mean(-1))**2).mean() for p,m in zip(parts, means) if p)/len(at)
        assert abs(slow[i]-want)<1e-12
        near = [(min(len(a), len(b)),((d-c)**2).mean()) for a,b,c,d in zip(parts, parts[1:], means, means[1:]) if a and b]
        assert abs(drift[i]-(want-sum(k*v for k,v in near)/sum(k for k,_ in near)/2 if near else 0))<1e-12

def test_the_statistics_are_those_of_collect_stats():
    dls = make_dls(*_plain())
    s,want = suggest_normalization(dls, progress=False),collect_stats(dls, progress=False)
    torch.testing.assert_close(s.stats.mean, want.mean, rtol=0, atol=1e-9); torch.testing.assert_close(s.stats.std, want.std, rtol=0, atol=1e-9)
    assert s.stats.fingerprint==want.fingerprint and s.stats.provenance['clips']==24
    assert abs(s.measured['variance']['total']-want.reduce('global').std.item()**2)<1e-6
    row = s.measured['per_row']
    np.testing.assert_allclose(np.add(row['between'], row['within']), want.std[0,...,0].square(), rtol=1e-9)

def test_gain_and_colour_are_found_in_their_size():
    "Of 200 clips: gain of 6 dB, a colour of 8 dB over rows that differs from clip to clip; a tenth for the sample and for the level that the colour adds"
    s = suggest(*sounds(n=200, seconds=.6, gain=6), of=dict(groups=False))
    assert abs(s.measured['variance']['gain']**.5-6)<.6 and abs(s.measured['wave']['spread_db']-6)<.6
    s = suggest(*sounds(n=200, seconds=.6, colour=8), of=dict(groups=False))
    assert abs((s.measured['variance']['colour']+s.measured['variance']['gain'])**.5-8)<.8

def test_shares_of_meaningless_labels_and_groups_are_near_0_and_of_true_ones_near_1():
    "Labels at random explain nothing on average, corrected for their number; a colour of each recording goes with it"
    table,clips = sounds(n=60, seconds=.5, colour=8, gain=8)
    rng,got = np.random.default_rng(0),[]
    dls = make_dls(table, clips)
    for _ in range(3):
        m = suggest_normalization(dls, labels=rng.integers(0, 15, 60), groups=rng.integers(0, 15, 60), progress=False).measured
        got += [m['labels']['gain'],m['labels']['colour'],m['groups']['gain'],m['groups']['colour']]
    assert np.mean(got)<.15
    own = [sounds(n=1, seconds=.5, colour=8, gain=8, seed=i//4)[1][0]*(1+.01*(i%4)) for i in range(60)]
    s = suggest(table, own, of=dict(groups='rec'))
    assert s.measured['groups']['gain']>.9 and s.measured['groups']['colour']>.9 and s.measured['groups']['name']=='rec' and 'with the rec' in s.reason

def test_groups_of_one_class_each_are_named():
    table,clips = sounds(n=24, seconds=.5)
    s = suggest(table.assign(rec=[f'{y}{i//6}' for i,y in enumerate(table.y)]), clips, of=dict(groups='rec'))
    assert s.measured['groups']['nested'] and any('each rec has but one class' in o for o in s.unknown)
    assert not suggest(table, clips, of=dict(groups='rec')).measured['groups']['nested']

# --- what must not matter ------------------------------------------------------------------------------------

def test_batch_size_order_and_padding_do_not_matter():
    "Up to float32 spectrograms of another batch width"
    table,clips = _plain()
    of = dict(groups='rec')
    a = suggest(table, clips, of=of)
    for kw in (dict(bs=1), dict(bs=5), dict(bs=24), dict(order=np.random.default_rng(0).permutation(24)), dict(item_tfms=[ResizeSignal(2500, AudioPadType.Zeros_After)])):
        b = suggest(table, clips, of=of, **kw)
        assert_same(a, b, 1e-4)
    assert b.measured['padding']>a.measured['padding']>0

def test_one_gain_for_all_clips_does_not_matter():
    "But for the level itself; 1e-3, since the floor of decibels (1e-10) stays where it is"
    table,clips = _plain()
    a = suggest(table, clips)
    for db in (-6,12):
        b = suggest(table, [c*10**(db/20) for c in clips])
        assert_same(a, b, 1e-3, but=('/mean','mean_db','per_row/mean'))
        assert abs(b.measured['mean']-a.measured['mean']-db)<1e-2 and abs(b.measured['wave']['mean_db']-a.measured['wave']['mean_db']-db)<1e-4

def test_it_leaves_no_trace():
    "Random state, pipelines and workers are as before, also after an error"
    table,clips = _plain()
    norm = AudioNormalize()
    dls = make_dls(table, clips, item_tfms=[norm], tfms=[AudioToSpec.from_cfg(mel),SpecNormalize(0., 1.)], workers=2)
    before,fs,workers = torch.get_rng_state(),[list(p.fs) for p in (dls.train.after_item,dls.train.after_batch)],dls.train.fake_l.num_workers
    np_before = np.random.get_state()[1].copy()
    s = suggest_normalization(dls, progress=False)
    same = lambda: [list(p.fs) for p in (dls.train.after_item,dls.train.after_batch)]==fs and dls.train.fake_l.num_workers==workers==2
    assert same() and torch.equal(before, torch.get_rng_state()) and (np_before==np.random.get_state()[1]).all()
    assert s.measured['wave']['before']=='AudioNormalize' and s.measured['units']=='dB'
    with pytest.raises(ValueError): suggest_normalization(dls, groups='nobody', progress=False)
    clips[3].view(-1)[5] = float('nan')
    try:
        with pytest.raises(ValueError, match='NaN or Inf in 1 clips: item 3'): suggest_normalization(make_dls(table, clips), progress=False)
    finally: clips[3].view(-1)[5] = 0.
    assert same()

def test_the_level_is_measured_before_audio_normalize_wherever_it_stands():
    table,clips = sounds(n=30, seconds=.6, gain=10)
    want = np.array([20*np.log10(c.numpy().std()) for c in clips]).std()
    for kw in (dict(tfms=[AudioNormalize(),AudioToSpec.from_cfg(mel)]), dict(item_tfms=[AudioNormalize()]), dict(tfms=[RMSNormalize(),AudioToSpec.from_cfg(mel)]), dict(item_tfms=[AudioNormalize()], workers=1)):
        s = suggest(table, clips, **kw)
        assert s.way=='global' and s.measured['variance']['gain']<1 and abs(s.measured['wave']['spread_db']-want)<.1 and 'levels of the waveforms' in s.reason

def test_each_item_is_read_once():
    table,clips = _plain()
    read = []
    class Count(SpecAct):
        def act(self, x): read.append(len(x)); return x
    dls = make_dls(table, clips, tfms=[AudioToSpec.from_cfg(mel),Count()])
    read.clear()
    suggest_normalization(dls, progress=False)
    assert sum(read)==24

# --- values far below the loudest ----------------------------------------------------------------------------

@pytest.mark.parametrize('unequal,silence', [(False,0.),(True,.3)])
def test_the_share_far_below_the_loudest_is_that_of_a_loop_over_clips(unequal, silence):
    table,clips = sounds(n=12, seconds=1., unequal=unequal, silence=silence, fixed=25)
    dls = make_dls(table, clips)
    x = next(iter(dls.train.new(shuffle=False, drop_last=False)))[0]
    below = total = 0
    for v,ok in zip(x.plain().numpy(), x.frame_mask('silence').numpy()):
        v = v[...,ok]
        below,total = below+(v<v.max()-50).sum(),total+v.size
    s = suggest_normalization(dls, progress=False)
    assert .01<below/total<.9 and s.measured['far_below']==pytest.approx(below/total, abs=1e-9)
    floor = next(a for a in s.alternatives if a['way']=='db_max+global')
    assert floor['cost'] is None and f'{100*below/total:.0f} % of the values' in floor['reason']

def test_a_floor_is_named_only_where_values_lie_below_it_and_its_transforms_collect_their_own():
    flat = suggest(*sounds(n=12, seconds=1.))
    assert flat.measured['far_below']<.01 and 'db_max+global' not in [a['way'] for a in flat.alternatives]
    table,clips = sounds(n=12, seconds=1., fixed=25)
    tfms = suggest(table, clips).transforms('db_max+global')
    dls = make_dls(table, clips, tfms=[AudioToSpec.from_cfg(mel),*tfms])
    x = dls.train.new(shuffle=False, drop_last=False).one_batch()[0].plain()
    assert abs(x.mean())<.01 and abs(x.std()-1)<.01
    assert (x.amax((1,2,3))-x.amin((1,2,3))).max()*tfms[1].std.item()<=50.001

# --- whatever comes ------------------------------------------------------------------------------------------

@pytest.mark.parametrize('cfg', [AudioConfig.BasicSpectrogram(n_fft=256), AudioConfig.BasicMelSpectrogram(n_fft=512, n_mels=20, top_db=60), AudioConfig.VITS(on_clip='ignore'),
    AudioConfig.LinearBands(n_filters=16), AudioConfig.Gammatone(n_filters=16), AudioConfig.BasicSpectrogram(n_fft=256, to_db=False, compression='power_law')], ids=lambda c: type(c).__name__)
def test_it_runs_on_every_kind_and_its_transforms_too(cfg):
    table,clips = sounds(n=12, seconds=.5)
    dls = make_dls(table, clips, cfg=cfg, bs=6)
    s = suggest_normalization(dls, progress=False)
    for way in ('none','global','frequency','item','item_frequency','sliding','robust'):
        x = dls.one_batch()[0]
        for t in s.transforms(way): x = t(x)
        assert x.isfinite().all()
    assert json.loads(json.dumps(s.to_dict()))==s.to_dict() and s.way in repr(s)
    assert len(s.plot())==2

def test_coefficients_and_spectrograms_that_do_not_know_themselves():
    table,clips = sounds(n=12, seconds=.5)
    s = suggest(table, clips, tfms=[AudioToMFCC.from_cfg(AudioConfig.BasicMFCC(n_mfcc=13, melkwargs=dict(n_fft=512, n_mels=20)))])
    assert s.way in ('frequency','item_frequency') and s.measured['units']=='coefficient'
    class Forget(SpecAct):
        def act(self, x): return AudioSpectrogram.create(x.plain())
    s = suggest(table, clips, tfms=[AudioToSpec.from_cfg(mel),Forget()])
    assert s.measured['window_seconds'] is None and s.measured['window_frames']==300 and any('units are not known' in o for o in s.unknown)

def test_power_and_magnitudes_are_refused():
    table,clips = sounds(n=4, seconds=.5)
    for power,name in ((2.,'power'),(1.,'magnitude')):
        with pytest.raises(ValueError, match=f'expected spectrograms in dB or log, got {name}'): suggest(table, clips, cfg=AudioConfig.BasicMelSpectrogram(n_fft=512, n_mels=20, to_db=False, power=power))

def test_rows_that_never_vary_and_rows_far_below_are_named():
    class Flat(SpecAct):
        def act(self, x): x = x.clone(); x[:,:,28:] = -100.; return x
    s = suggest(*sounds(), tfms=[AudioToSpec.from_cfg(mel),Flat()])
    assert s.measured['weak_rows']==4 and any('4 of 32 rows' in o for o in s.unknown)
    class Still(SpecAct):
        def act(self, x): return x*0-50
    s = suggest(*sounds(n=6, seconds=.5), tfms=[AudioToSpec.from_cfg(mel),Still()])
    assert s.way=='none' and 'never vary' in s.reason and repr(s) and s.to_dict() and len(s.plot())==2

@pytest.mark.parametrize('n', [1,2,9])
def test_few_clips_say_nothing_about_gain_and_colour(n):
    s = suggest(*sounds(n=n, seconds=.6, gain=15, colour=10, fixed=15))
    assert s.way=='frequency' and s.measured['recording']['gain']==0==s.measured['recording']['colour']
    assert any(f'{n} clips with sound are too few' in o for o in s.unknown) and repr(s) and json.dumps(s.to_dict(), allow_nan=False)

def test_clips_of_silence_are_left_out_and_nothing_but_silence_is_an_error():
    table,clips = sounds(n=20, seconds=.5)
    quiet = [c*0 if i<5 else c for i,c in enumerate(clips)]
    s = suggest(table, quiet)
    assert s.measured['silent_clips']==5 and s.measured['clips']==15 and s.way==suggest(table, clips).way and json.dumps(s.to_dict(), allow_nan=False)
    with pytest.raises(ValueError, match='there is nothing to normalize'): suggest(table, [c*0 for c in clips])

def test_channels_are_measured_each_by_itself():
    "Two equal channels give what one gives; a gain between channels is no variance"
    table,clips = sounds(n=16, seconds=.5, colour=6)
    two = [AudioTensor(torch.cat([c.plain(),3*c.plain()]), sr=sr) for c in clips]
    def dls(clips): return DataBlock(blocks=(AudioBlock(force_mono=False), CategoryBlock), get_x=lambda r: clips[r['x']], get_y=ColReader('y'), splitter=IndexSplitter([15]),
                                     batch_tfms=[AudioToSpec.from_cfg(mel)]).dataloaders(table, bs=8, num_workers=0)
    a,b = (suggest_normalization(dls(c), progress=False) for c in (clips,two))
    assert b.measured['channels']==2 and a.way==b.way
    for k,v in a.measured['variance'].items(): assert abs(v-b.measured['variance'][k])<1e-2*max(1,v), k

def test_bad_arguments_are_named():
    dls = make_dls(*_plain())
    for kw,words in ((dict(window=0),'window'), (dict(frac=2),'frac'), (dict(mask='x'),'mask'), (dict(groups='nobody'),"groups: no column 'nobody'"), (dict(labels=[1]),'labels: expected one for each'), (dict(leave_out='Nobody'),'leave_out')):
        with pytest.raises(ValueError, match=words): suggest_normalization(dls, progress=False, **kw)
    with pytest.raises(ValueError, match='way: expected one of'): suggest_normalization(dls, progress=False).transforms('best')

def test_files_with_groups_and_without_labels(synthetic):
    files = get_audio_files(synthetic)[:12]
    s = suggest_normalization(files, groups=['x','y']*6, tfms=[AudioToSpec.from_cfg(mel)], progress=False)
    assert s.measured['groups']['n']==2 and s.measured['labels'] is None

def test_files_and_a_part_of_them(synthetic):
    files = get_audio_files(synthetic)
    tfms = [AudioNormalize(),AudioToSpec.from_cfg(mel)]
    s = suggest_normalization(files, tfms=tfms, progress=False)
    assert s.measured['clips']==80 and s.measured['labels'] is None and s.measured['wave']['before']=='AudioNormalize'
    part,again = (suggest_normalization(files, tfms=tfms, frac=.5, seed=1, progress=False, labels=[f.stem.split('-')[-1] for f in files]) for _ in range(2))
    assert part.measured['clips']==40 and part.measured['labels']['n']==8 and part.to_dict()==again.to_dict()

# --- real sounds ---------------------------------------------------------------------------------------------

def test_digits_resampled_beyond_their_band_are_told_so(fsdd):
    df = pd.read_csv(fsdd/'meta'/'fsdd.csv').iloc[::25]
    def of(rate, cfg): return suggest_normalization(DataBlock(blocks=(AudioBlock(sample_rate=rate), CategoryBlock), get_x=ColReader('filename', pref=fsdd/'audio'), get_y=ColReader('digit'),
        splitter=IndexSplitter([0]), batch_tfms=[AudioNormalize(),AudioToSpec.from_cfg(cfg)]).dataloaders(df, bs=16, num_workers=0), groups='speaker', progress=False)
    a,b = of(8000, AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=160, n_mels=64)),of(16000, AudioConfig.BasicMelSpectrogram(n_fft=1024, hop_length=320, n_mels=64))
    assert a.measured['variance']['tilt']<.3*a.measured['variance']['total'] and a.measured['weak_rows']==0
    assert b.way=='frequency' and b.measured['variance']['tilt']>.7*b.measured['variance']['total'] and b.measured['weak_rows']>10
    for s in (a,b): assert s.measured['groups']['gain']>s.measured['labels']['gain'] and s.measured['groups']['n']==5

def test_level_tells_the_classes_of_esc10(esc10):
    df = pd.read_csv(esc10/'meta'/'esc10.csv').iloc[::4]
    s = suggest_normalization(DataBlock(blocks=(AudioBlock(sample_rate=16000), CategoryBlock), get_x=ColReader('filename', pref=esc10/'audio'), get_y=ColReader('category'),
        splitter=IndexSplitter([0]), batch_tfms=[AudioNormalize(),AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=1024, hop_length=320, n_mels=64))]).dataloaders(df, bs=16, num_workers=0), progress=False)
    m = s.measured
    assert m['labels']['gain']>.5 and s.way in ('global','frequency') and m['groups']['name']=='src_file' and .03<m['silence']<.3
