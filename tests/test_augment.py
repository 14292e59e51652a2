"Augmentations: laws that hold for all of them, then each by itself, then what surrounds them"
import copy,pickle

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given,settings,strategies as st
from fastai.data.all import CategoryBlock,ColReader,DataBlock,Pipeline
from fastai.torch_core import TensorCategory,TensorImage,set_seed

from specnorm_fastai.augment import *
from specnorm_fastai.augment import SpectrogramTransform,_reach,_shift
from specnorm_fastai.core import AudioSpectrogram,AudioTensor
from specnorm_fastai.data import AudioBlock,AudioPadType,CrossValidationSplitter,OpenAudio,PadAudio,ResizeSignal,synthetic_audio
from specnorm_fastai.experiment import experiment_dls,read_table,split_masks
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.functional import n_frames
from specnorm_fastai.specstats import fingerprint
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.transforms import SpecNormalize

C = NoiseColor
def noise(*shape, sr=8000, seed=0, **kw):
    return AudioTensor(torch.randn(*shape, generator=torch.Generator().manual_seed(seed))*.1+.05, sr=sr, **kw)
def to_spec(**kw): return AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(**{'n_fft':64, 'hop_length':32, **kw}))
def spec(*shape, seed=0, **kw): return to_spec(**kw)(noise(*shape, seed=seed, fn=None if len(shape)>2 else 'a.wav'))
def seeded(f, *args, seed=0, **kw): torch.manual_seed(seed); return f(*args, **kw)

SIGNAL = {'shift':SignalShifter(1,.5), 'shift right':SignalShifter(1,direction=1,max_time=.1), 'roll':SignalShifter(1,.5,roll=True),
          'volume':ChangeVolume(1), 'cutout':SignalCutout(1,.5), 'cutoutGPU':SignalCutoutGPU(1,.2,.5), 'loss':SignalLoss(1,.5),
          'lossGPU':SignalLossGPU(1,.2,.5),
          'noise':AddNoise(.5,p=1), 'pink':AddNoise(.5,C.Pink,p=1), 'noiseGPU':AddNoiseGPU(1,.1,.5),
          'brownGPU':AddNoiseGPU(1,.1,.5,C.Brown)}
SPEC = {'shift':SignalShifter(1,.5), 'shift by time':SignalShifter(1,max_time=.05), 'roll':SignalShifter(1,.5,roll=True),
        'noiseGPU':AddNoiseGPU(1,.1,.5), 'blueGPU':AddNoiseGPU(1,.1,.5,C.Blue),
        'freq':MaskFreq(2,3), 'freq at 4':MaskFreq(1,3,4,7.), 'time':MaskTime(2,3), 'freqGPU':MaskFreqGPU(2,1,6),
        'timeGPU':MaskTimeGPU(2,1,6), 'timeGPU 0':MaskTimeGPU(2,1,6,0.), 'SGRoll':SGRoll()}
MORE = {'crop':CropTime(50), 'pad':CropTime(900), 'pad after':CropTime(900,AudioPadType.Zeros_After),
        'repeat':CropTime(900,AudioPadType.Repeat)}
FIXED = {'delta':Delta(5), 'deltaGPU':DeltaGPU(5), 'resize':TfmResize((16,20))}
def cases(*groups):
    ids = [f"{m.__name__} {k}" for g,m in groups for k in g]
    return pytest.mark.parametrize('t,make', [(t,m) for g,m in groups for t in g.values()], ids=ids)
def a_signal(*lead, n=800, **kw): return noise(*lead, n, **kw)
def a_spec(*lead, n=800, **kw): return spec(*lead, n, **kw)
random_ones = cases((SIGNAL,a_signal), (SPEC,a_spec))
with_crops = cases((SIGNAL,a_signal), (SPEC,a_spec), (MORE,a_spec))
everything = cases((SIGNAL,a_signal), (SPEC,a_spec), (MORE,a_spec), (FIXED,a_spec))
def same(a, b):
    assert type(a) is type(b) and torch.equal(a.plain().nan_to_num(9e9), b.plain().nan_to_num(9e9))
    assert a.real_lengths.tolist()==b.real_lengths.tolist()
    assert (a.silent is None)==(b.silent is None) and (a.silent is None or torch.equal(a.silent, b.silent))

# ---- laws for all

@everything
def test_an_item_is_a_batch_of_one(t, make):
    for ch in (1,2):
        x = make(ch)
        same(seeded(t, x), seeded(t, x[None])[0])

@everything
def test_the_input_is_left_as_it_was(t, make):
    x = torch.stack(PadAudio()([make(2), make(2, n=500, seed=1)]))
    was = copy.deepcopy(x); s = copy.deepcopy(getattr(x, 'settings', None))
    y = seeded(t, x)
    same(x, was)
    assert getattr(x, 'settings', None)==s and y.data_ptr()!=x.data_ptr()

@with_crops
def test_a_seed_gives_the_same_again_and_another_something_else(t, make):
    x = make(8, 1)
    same(seeded(t, x), seeded(t, x))
    if t not in (SPEC['freq at 4'],MORE['pad after'],MORE['repeat']):
        assert not torch.equal(seeded(t, x).plain(), seeded(t, x, seed=1).plain())

@random_ones
def test_each_item_of_a_batch_has_its_own_draw(t, make):
    if t is SPEC['freq at 4']: return
    x = torch.stack([make(1)]*12)
    y = t(x)
    assert len({o.plain().numpy().tobytes() for o in y})>=6

@random_ones
def test_channels_of_an_item_share_a_draw_but_for_noise(t, make):
    x = make(1); x = torch.cat([x, x])
    y = t(x).plain()
    assert torch.equal(y[0], y[1])==(not isinstance(t, (AddNoise,AddNoiseGPU)))

@random_ones
def test_only_training_is_augmented(t, make):
    x = make(12, 1)
    state = torch.get_rng_state()
    assert t(x, split_idx=1) is x and t(x, split_idx=2) is x
    pipe = Pipeline([t]); assert pipe(x) is x and torch.equal(torch.get_rng_state(), state)  # no split, no draw
    for idx in (0,1): pipe.split_idx = idx; assert (pipe(x) is x)==(idx==1)
    for y in (t(x), t(x, split_idx=0), t.encodes(x)): assert not torch.equal(y.plain(), x.plain())
    same(seeded(t, x), seeded(t, x, split_idx=0))

@with_crops
def test_two_inputs_of_a_tuple_get_the_same_draw(t, make):
    x,y,z = t((make(2, 1), make(2, 1), TensorCategory(1)), split_idx=0)
    same(x, y); assert type(z) is TensorCategory and t._seed is None

@everything
def test_encoding_sets_no_state(t, make):
    was = dict(t.__dict__); t.encodes(make(2, 1)); assert t.__dict__==was
    t(make(2, 1))  # a call may leave behind what `before_call` decides anew each time
    kept = lambda d: {k:v for k,v in d.items() if k not in ('do','_centred','_seed')}
    assert kept(t.__dict__)==kept(was) and t.__dict__.get('_seed') is None

@random_ones
@pytest.mark.parametrize('more', [1,37,600])
def test_padding_changes_nothing(t, make, more):
    items = [make(2, n=n, seed=n) for n in (800,448,640)]
    x = torch.stack(PadAudio()(items))
    far = torch.stack(PadAudio()([*items, make(2, n=800+32*more)])[:3])
    a,b = seeded(t, x),seeded(t, far)
    assert a.lengths.tolist()==b.lengths.tolist()==x.lengths.tolist() and b.shape==far.shape and not torch.equal(a.plain(), x.plain())
    for i,n in enumerate(x.lengths.tolist()):
        torch.testing.assert_close(a.plain()[i,...,:n], b.plain()[i,...,:n], rtol=1e-6, atol=1e-6)  # means are summed in another order
        for y,o in ((a,x),(b,far)): assert torch.equal(y.plain()[i,...,n:], o.plain()[i,...,n:])

@cases((MORE,a_spec), ({k:v for k,v in FIXED.items() if k!='resize'},a_spec))
def test_padding_changes_no_crop_and_no_slope(t, make):
    items = [make(2, n=n, seed=n) for n in (800,448,640)]
    x,far = torch.stack(PadAudio()(items)),torch.stack(PadAudio()([*items, make(2, n=2000)])[:3])
    a,b = seeded(t, x),seeded(t, far)
    assert a.lengths.tolist()==b.lengths.tolist()
    for i,n in enumerate(a.lengths.tolist()): assert torch.equal(a.plain()[i,...,:n], b.plain()[i,...,:n])

@everything
@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16,torch.float64])
def test_a_dtype_stays(t, make, dtype):
    x = make(2, 1)
    y = seeded(t, x.to(dtype))
    assert y.dtype==dtype and y.shape==seeded(t, x).shape and torch.isfinite(y).all()
    tol = {torch.float16:1e-3, torch.bfloat16:8e-3, torch.float64:1e-5}[dtype]
    if make is a_spec: tol *= 100  # the precision of the values, -100 to 0 dB
    d = (y.plain().double()-seeded(t, x.to(dtype).float()).plain().double()).abs()
    assert d.max()<=tol

@everything
def test_nan_stays_in_its_item(t, make):
    x = torch.stack([make(2), make(2, seed=1)])
    bad = x.clone(); bad.plain()[1,...,5] = float('nan')
    a,b = seeded(t, x),seeded(t, bad)
    assert torch.equal(a.plain()[0], b.plain()[0]) and torch.isfinite(b.plain()[0]).all()
    if t in FIXED.values(): assert torch.isnan(b.plain()[1]).any()  # what is drawn may cut it out or mask it

@everything
def test_metadata_stays(t, make):
    x = torch.stack(PadAudio()([make(1), make(1, n=600)])); x.fn = ('a','b')
    y = t(x)
    assert y.fn==('a','b') and type(y) is type(x)
    if make is a_signal:
        x.waveform_norm = 'standard'
        assert (y.sr, y.lengths.tolist(), t(x).waveform_norm)==(8000, x.lengths.tolist(), 'standard')
    elif t not in FIXED.values(): assert y.settings==x.settings and y.freqs==x.freqs

@everything
def test_what_is_something_else_passes_untouched(t, make):
    others = [torch.randn(2,100), TensorImage(torch.rand(3,8,8)), TensorCategory(1), 'a', 3]
    if make is a_signal and not isinstance(t, (SignalShifter,AddNoiseGPU)): others.append(a_spec(1))
    for o in others: assert t(o) is o

@everything
def test_it_pickles_and_tells_its_arguments(t, make):
    u = pickle.loads(pickle.dumps(t)); x = make(2, 1)
    same(seeded(u, x), seeded(t, x))
    assert u.name==t.name and (not hasattr(t, '__stored_args__') or all(f"'{k}'" in t.name for k in t.__stored_args__))

@everything
def test_nothing_in_gives_nothing_out_or_a_clear_error(t, make):
    if make is a_signal: x = AudioTensor(torch.zeros(2,1,0), sr=8000)
    else: x = AudioSpectrogram.create(torch.zeros(2,1,33,0), settings=a_spec(1).settings)
    if t in FIXED.values(): pytest.raises(ValueError, t, x)
    else: assert t(x) is x

def test_too_few_dims_and_integers_are_refused():
    with pytest.raises(ValueError, match='expected a AudioTensor of at least 2 dims'): ChangeVolume(1)(AudioTensor(torch.zeros(9), sr=8000))
    with pytest.raises(TypeError, match='expected floating point values, got torch.int64'):
        ChangeVolume(1)(AudioTensor(torch.zeros(1,9).long(), sr=8000))
    with pytest.raises(ValueError, match='at least 3 dims'): Delta(3)(AudioSpectrogram.create(torch.zeros(4,9)))

@pytest.mark.parametrize('t', [SignalShifter(.3), AddNoise(p=.3), AddNoiseGPU(.3,.1,.2), ChangeVolume(.3), SignalCutoutGPU(.3,.1),
                               SignalLossGPU(.3,.1)], ids=lambda t: type(t).__name__)
def test_p_is_the_probability_of_an_item(t):
    x = noise(1,200).expand(1000,1,200)
    n = int((seeded(t, x)!=x).plain().any(-1).sum())
    assert 230<=n<=370  # 300 is expected, with a std of 14.5; short shifts of less than a sample take a few
    t0 = copy.copy(t); t0.p = 0.
    assert t0(x) is x

@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU')
@everything
def test_a_gpu_draws_the_same(t, make):
    x = torch.stack(PadAudio()([make(2), make(2, n=480)]))
    a,b = seeded(t, x),seeded(t, x.cuda())
    assert b.is_cuda
    atol = 1e-3 if make is a_spec else 1e-5  # sums of float32 in another order
    torch.testing.assert_close(a.plain(), b.plain().cpu(), rtol=1e-4, atol=atol)
    assert a.real_lengths.tolist()==b.real_lengths.tolist()

def test_two_gpu_names_are_other_names_and_two_add_a_smallest_size():
    assert ChangeVolumeGPU is ChangeVolume and TfmResizeGPU is TfmResize
    x = a_signal(3,2)
    same(seeded(SignalCutout(1,.3), x), seeded(SignalCutoutGPU(1,0.,.3), x))
    same(seeded(SignalLoss(1,.3), x), seeded(SignalLossGPU(1,0.,.3), x))

# ---- arguments

@pytest.mark.parametrize('make,match', [
    (lambda: SignalShifter(p=1.5), 'p: expected a number of 0 to 1, got 1.5'),
    (lambda: SignalShifter(max_pct=20), 'max_pct'),
    (lambda: SignalShifter(max_time=-1), 'max_time: expected a number of at least 0'),
    (lambda: SignalShifter(direction=2), r'direction: expected -1 \(left\), 0 \(both\) or 1 \(right\), got 2'),
    (lambda: SGRoll(direction=-2), 'direction'),
    (lambda: SGRoll(1.5), 'max_shift_pct'),
    (lambda: AddNoise(color=3), 'color: expected one of NoiseColor'),
    (lambda: AddNoise(color='pink'), "got 'pink'"),
    (lambda: AddNoise(-1), 'noise_level'),
    (lambda: AddNoiseGPU(1,.5,.1), 'expected min_level <= max_level, got 0.5 and 0.1'),
    (lambda: ChangeVolume(1,2,1), 'lower <= upper'),
    (lambda: ChangeVolume('a'), 'p: expected'),
    (lambda: SignalCutoutGPU(1,.5,.1), 'min_cut_pct <= max_cut_pct'),
    (lambda: SignalCutout(1,15), 'max_cut_pct'),
    (lambda: SignalLoss(1,15), 'max_loss_pct'),
    (lambda: SignalLossGPU(1,-.1), 'min_cut_pct'),
    (lambda: MaskFreq(size=0), 'size: expected a whole number of at least 1'),
    (lambda: MaskFreq(start=-1), 'start'),
    (lambda: MaskTime(num_masks=1.5), 'num_masks'),
    (lambda: MaskFreqGPU(1,5,2), 'min_size <= max_size'),
    (lambda: CropTime(0), 'duration: expected milliseconds above 0'),
    (lambda: Delta(4), 'width: expected an odd'),
    (lambda: Delta(1), 'width: expected a whole number of at least 3'),
    (lambda: DeltaGPU(9,'wrap'), "mode: expected one of .*got 'wrap'"),
    (lambda: TfmResize((1,2,3)), 'size'),
    (lambda: TfmResize(0), 'size'),
    (lambda: TfmResize(5,'cubic'), "interp_mode: expected .* got 'cubic'")])
def test_wrong_arguments_are_refused_when_made(make, match):
    with pytest.raises(ValueError, match=match): make()

def test_a_waveform_passes_what_is_for_spectrograms_with_a_warning():
    x = a_signal(1)
    for t in (CropTime(1),Delta(),DeltaGPU(),MaskFreq(),MaskTime(),MaskFreqGPU(),MaskTimeGPU(),SGRoll(),TfmResize(2)):
        assert isinstance(t, SpectrogramTransform)
        with pytest.warns(UserWarning, match=rf'{type(t).__name__} is for spectrograms: an AudioTensor of shape \(1, 800\)'):
            assert t(x) is x

def test_seconds_need_a_rate():
    with pytest.raises(ValueError, match='does not know its sample rate'): SignalShifter(1,max_time=1)(AudioTensor(torch.randn(1,9)))
    for t in (SignalShifter(1,max_time=1),CropTime(100)):
        with pytest.raises(ValueError, match=f'{type(t).__name__}: expected a spectrogram with sr and hop_length'):
            t(AudioSpectrogram.create(torch.randn(1,4,9)))

@pytest.mark.parametrize('p', [2.,-.1,float('nan'),'a',None,True])
def test_a_probability_is_between_0_and_1(p):
    with pytest.raises(ValueError, match='p: expected a number of 0 to 1, got'): random_mask([3], p)

def test_random_mask_takes_a_probability_for_each():
    m = seeded(random_mask, [3,4000], torch.tensor([[0.],[.3],[1.]])).float().mean(-1)
    assert m[0]==0 and m[2]==1 and m[1]==pytest.approx(.3, abs=.03)  # std 0.007
    for p in (0,1,np.float32(1)): assert random_mask([9], p).all()==bool(p)

@pytest.mark.parametrize('direction', [-1,0,1])
def test_shifts_and_rolls_reach_the_same_way(direction):
    by = _reach(4000, direction, torch.Generator().manual_seed(0), 'cpu')
    assert by.dtype==torch.float64 and by.abs().max()<=1 and (by*direction>=0).all()
    assert by.mean()==pytest.approx(direction/2, abs=.04) and by.abs().mean()==pytest.approx(.5, abs=.02)  # std 0.009 and 0.005

# ---- noise

@pytest.mark.parametrize('color', [-2,-1,0,1,2])
def test_noise_has_the_slope_of_its_colour(color):
    y = seeded(colored_noise, [200,4096], color)
    f,p = torch.fft.rfftfreq(4096)[4:-4].log2(),torch.fft.rfft(y).abs().pow(2).mean(0)[4:-4].log2()
    assert np.polyfit(f, p, 1)[0]==pytest.approx(-color, abs=.03)  # 200 draws at 2040 frequencies: std of the slope 0.003
    assert y.var()==pytest.approx(1, abs=.25 if color==2 else .03) and (color==0 or y.mean(-1).abs().max()<1e-5)

@given(n=st.integers(2,60), color=st.sampled_from(range(-2,3)))
@settings(max_examples=25)
def test_noise_of_any_length_has_unit_variance(n, color):
    y = seeded(colored_noise, [3000,n], color)
    assert y.shape==(3000,n) and y.pow(2).mean()==pytest.approx(1, abs=.12)  # n=2: 3000 squares of one normal number, std 0.026

def test_noise_takes_fastaudios_arguments():
    assert colored_noise(7, 1).shape==(7,) and colored_noise((2,3,5), 1.5, fmin=.1).shape==(2,3,5) and colored_noise([4,1], 2).shape==(4,1)
    low = lambda fmin: torch.fft.rfft(seeded(colored_noise, [500,256], 2, fmin)).abs().pow(2).mean(0)
    assert low(.25)[2]/low(.25)[60]==pytest.approx(1, abs=.3) and low(0)[2]/low(0)[60]>300  # flat below a quarter of the rate
    pytest.raises(ValueError, colored_noise, [9], 1, .7).match('fmin')
    assert [C.valid(v) for v in (-3,-2,2,3,'a',None)]==[False,True,True,False,False,False]

@pytest.mark.parametrize('make', [lambda l: AddNoise(l,p=1), lambda l: AddNoiseGPU(1,l,l), lambda l: AddNoise(l,C.Brown,1)],
                         ids=['mean','std','brown'])
def test_noise_has_its_level_and_mean_zero(make):
    x = noise(20,1,4000)*torch.arange(1,21)[:,None,None]
    t = make(.5); n = (seeded(t, x)-x).plain()
    unit = x.plain().abs().mean((1,2)) if isinstance(t, AddNoise) else x.plain().std((1,2))
    rtol = .8 if t.color else .05  # a brown clip is a few slow waves
    torch.testing.assert_close(n.std((1,2))/unit, torch.full((20,), .5), rtol=rtol, atol=0)
    assert (n.mean((1,2))/unit).abs().max()<.05  # 0.5/sqrt(4000) is 0.008

def test_noise_is_independent_between_channels_and_items():
    x = noise(1,16000).expand(3,2,16000)
    n = (AddNoiseGPU(1,.5,.5)(x)-x).plain().reshape(6,-1)
    assert (torch.corrcoef(n)-torch.eye(6)).abs().max()<.04  # 1/sqrt(16000) is 0.008

def test_levels_are_drawn_in_their_range():
    x = noise(300,1,1000)
    lv = ((AddNoiseGPU(1,.1,.5)(x)-x).plain().std((1,2))/x.plain().std((1,2)))
    assert .085<lv.min()<.13 and .47<lv.max()<.56 and lv.mean()==pytest.approx(.3, abs=.03)

# ---- volume, shift, cutout, loss

def test_gains_are_in_their_range():
    x = noise(300,2,50)
    g = (ChangeVolume(1,.5,2)(x)/x).plain()
    assert torch.allclose(g, g[:,:1,:1].expand_as(g), rtol=1e-5) and .5<=g.min()<.6 and 1.9<g.max()<=2.001

@given(n=st.integers(1,20), s=st.integers(-25,25), roll=st.booleans())
def test_shift_is_numpys(n, s, roll):
    x = torch.arange(1,n+1)[None]
    want = np.roll(x.numpy(), s, -1) if roll else np.array([[v-s if 1<=v-s<=n else 0 for v in range(1,n+1)]])
    assert torch.equal(shift_signal(x, s, roll), torch.from_numpy(want)) and x.tolist()==[list(range(1,n+1))]
    if not roll: assert torch.equal(_shift(x, s), torch.from_numpy(want))

@pytest.mark.parametrize('direction', [-1,0,1])
def test_shifts_go_where_they_may_and_no_farther(direction):
    x = torch.arange(1.,101).expand(400,1,100); x = AudioTensor(x, sr=100)
    for t in (SignalShifter(1,.2,direction=direction), SignalShifter(1,max_time=.2,direction=direction)):
        s = 50-t(x).plain()[:,0,49]
        assert {*s.tolist()}<={*range(-19,20)} and len({*s.tolist()})>15
        assert (s*direction>=0).all()

def test_seconds_of_a_spectrogram_are_frames():
    x = a_spec(300,1,n=3200); x = AudioSpectrogram.create(torch.arange(1.,102).expand(300,1,2,101), settings=x.settings)
    s = (51-SignalShifter(1,max_time=.1)(x).plain()[:,0,0,50]).abs()  # 0.1 s are 25 frames of 4 ms
    assert 20<=s.max()<25

def test_a_gap_in_a_spectrogram_is_silence():
    for sg,quiet in ((a_spec(2),-100.), (spec(2,800,to_db=False),0.)):
        y = seeded(SignalShifter(1,max_time=.05,direction=1), sg)
        k = int(y.silent.sum())
        assert k>0 and (y.plain()[...,:k]==quiet).all() and torch.equal(y.plain()[...,k:], sg.plain()[...,:-k]) and y.silent[:k].all()
    sg = spec(2,800,top_db=30.)
    assert torch.allclose(seeded(SignalShifter(1,max_time=.05,direction=1), sg).plain()[...,0], sg.plain().max()-30)

def test_silent_frames_move_along():
    x = noise(1,1600); x[...,:800] = 0
    sg = to_spec()(x)
    for t in (SignalShifter(1,.5),SGRoll(),SignalShifter(1,.5,roll=True)):
        y = t(sg); assert torch.equal(y.silent, (y.plain()==-100).all(-2)[0])
    for t in (MaskFreq(1,3),MaskTimeGPU(),AddNoiseGPU(1,.1,.1)): assert t(sg).silent is None

@given(lo=st.floats(0,1), hi=st.floats(0,1), n=st.integers(1,200), seed=st.integers(0,99))
def test_a_cutout_is_one_piece_of_a_size_in_its_range(lo, hi, n, seed):
    lo,hi = sorted((lo,hi))
    y = seeded(SignalCutoutGPU(1,lo,hi), AudioTensor(torch.ones(4,2,n), sr=8000), seed=seed).plain()
    for o in y:
        assert (o[0]==o[1]).all() and round(lo*n)<=(k:=int((o[0]==0).sum()))<=round(hi*n)
        if k: assert int((o[0]==0).int().diff(prepend=torch.zeros(1), append=torch.zeros(1)).abs().sum())==2

def test_loss_takes_its_part_of_the_samples():
    y = SignalLossGPU(1,.2,.4)(AudioTensor(torch.ones(200,2,4000), sr=8000)).plain()
    lost = (y==0).float().mean(-1)
    assert torch.equal(lost[:,0], lost[:,1]) and .17<lost.min()<.23 and .37<lost.max()<.43 and lost.mean()==pytest.approx(.3, abs=.02)

# ---- masks

@given(lo=st.integers(0,10), more=st.integers(0,10), room=st.integers(0,10), n=st.integers(1,5), seed=st.integers(0,99))
def test_a_region_is_one_piece_of_its_size(lo, more, room, n, seed):
    m = seeded(region_mask, n, lo, lo+more, lo+more+room, seed=seed)
    assert m.shape==(n,lo+more+room) and m.dtype==torch.bool and (m.sum(-1)>=lo).all() and (m.sum(-1)<=lo+more).all()
    assert (F_pad(m).int().diff(dim=-1).abs().sum(-1)<=2).all()
def F_pad(m): return torch.nn.functional.pad(m.int(), (1,1))

def test_regions_are_everywhere_and_of_every_size():
    m = seeded(region_mask, 20000, 1, 4, 10)
    size = m.sum(-1)
    assert torch.allclose(size.bincount(minlength=5)[1:]/20000, torch.full((4,), .25), atol=.02)
    first = m[size==3].int().argmax(-1).bincount(minlength=8)
    assert torch.allclose(first/first.sum(), torch.full((8,), 1/8), atol=.03)

def test_a_region_larger_than_its_axis_is_refused():
    with pytest.raises(ValueError, match='a mask of 11 is larger than its axis, which has 10 places'): region_mask(3, 1, 11, 10)
    with pytest.raises(ValueError, match='expected 0 <= min <= max'): region_mask(3, 5, 4, 10)
    sg = AudioSpectrogram.create(torch.rand(2,1,4,12), lengths=[12,6])
    with pytest.raises(ValueError, match='a mask of 9 is larger than its axis, which has 6 places'): MaskTimeGPU(1,9,9)(sg)
    with pytest.raises(ValueError, match='size: MaskTime of size 9 is larger than its axis, which has 6'): MaskTime(1,9)(sg)
    with pytest.raises(ValueError, match='start: expected 0 to 2 for a mask of 3 on an axis of 5, got 3'):
        MaskFreq(1,3,3)(AudioSpectrogram.create(torch.rand(1,5,9)))
    for a in (0,1): pytest.raises(ValueError, mask_along_axis_, torch.rand(2,1,4,9), 1, 1, 2, axis=a).match('axis: expected 2')
    pytest.raises(ValueError, mask_along_axis_, torch.rand(1,4,9), 1, 1, 2).match('specgrams: expected')

@pytest.mark.parametrize('cls,dim', [(MaskFreq,-1),(MaskTime,-2)])
def test_fixed_masks_have_their_size_place_and_value(cls, dim):
    sg = AudioSpectrogram.create(torch.rand(3,2,30,40)+1)
    y = cls(1,7,5,0.)(sg)
    hidden = (y.plain()==0)
    assert torch.equal(hidden.all(dim), hidden.any(dim)) and hidden.all(dim).nonzero()[:,-1].unique().tolist()==[5,6,7,8,9,10,11]
    mean = cls(1,7,5)(sg).plain()[:,:,5:12,5:12]  # hidden by both
    torch.testing.assert_close(mean, sg.plain().mean((-2,-1),keepdim=True).expand_as(mean))
    k = (cls(3,7,5,0.)(sg).plain()==0).all(dim).sum(-1)
    assert (k>=7).all() and (k<=21).all() and (k>7).any()
    assert torch.equal(cls(0)(sg).plain(), sg.plain())

def test_means_are_those_of_real_frames():
    x = torch.rand(2,1,8,20); x[1,...,10:] = 99.
    sg = AudioSpectrogram.create(x, lengths=[20,10])
    for t in (MaskFreq(1,3,2),MaskFreqGPU(1,3,3)):
        y = t(sg).plain(); assert y[...,:10].max()<=1 and (y[1,...,10:]==99).all()
    torch.testing.assert_close(MaskFreq(1,3,2)(sg).plain()[1,0,2:5,:10], x[1,...,:10].mean().expand(3,10))

def test_behind_normalization_zero_is_the_mean():
    order = {type(t):t.order for t in (*SPEC.values(),*MORE.values(),*FIXED.values(),*SIGNAL.values())}
    assert all(order[c]==100 for c in (MaskFreq,MaskTime,MaskFreqGPU,MaskTimeGPU,SGRoll)) and SpecNormalize.order==99
    assert all(v==0 for c,v in order.items() if c not in (MaskFreq,MaskTime,MaskFreqGPU,MaskTimeGPU,SGRoll))
    sg = a_spec(2,1); p = Pipeline([MaskFreq(1,5,3,0.), SpecNormalize(-40., 10.)], split_idx=0)
    back = SpecNormalize(-40., 10.).decode(p(sg))
    torch.testing.assert_close(back.plain()[...,3:8,:], torch.full_like(back.plain()[...,3:8,:], -40.))

# ---- CropTime

@given(n=st.integers(64,3000), ms=st.integers(10,400), center=st.booleans(), pad=st.integers(0,5),
       mode=st.sampled_from(list(AudioPadType)), train=st.booleans())
def test_a_crop_has_the_width_of_a_clip_of_that_duration(n, ms, center, pad, mode, train):
    a2s = to_spec(center=center, pad=pad)
    sg = a2s(noise(1,n)); y = CropTime(ms, mode)(sg, split_idx=0 if train else 1)
    samples = int(ms/1000*8000)
    assert y.width==n_frames(samples, 64, 32, center, pad) and y.settings==sg.settings and y.freqs==sg.freqs
    if samples>=64: assert y.width==a2s(ResizeSignal(ms, mode)(noise(1,n), split_idx=0 if train else 1)).width
    k = min(y.width, sg.width)
    if mode is AudioPadType.Zeros_After: assert int(y.lengths)==k and (y.plain()[...,k:]==-100).all() and (y.silent[k:]).all()
    if mode is AudioPadType.Repeat:
        assert int(y.lengths)==y.width
        if y.width>sg.width: assert torch.equal(y.plain(), sg.plain()[...,torch.arange(y.width)%sg.width])
    if mode is AudioPadType.Zeros and y.width>sg.width and not train:
        at = (y.width-sg.width+1)//2; assert torch.equal(y.plain()[...,at:at+sg.width], sg.plain())

@pytest.mark.parametrize('sr,hop', [(22050,220),(44100,441),(16000,100),(11025,49)])
def test_a_width_is_exact_at_any_rate(sr, hop):
    a2s = to_spec(hop_length=hop); x = noise(1,3*sr,sr=sr)
    for ms in range(100,2000,37): assert CropTime(ms)(a2s(x)).width==n_frames(int(ms/1000*sr), 64, hop)

def test_crops_are_random_in_training_and_centred_at_validation():
    sg = AudioSpectrogram.create(torch.arange(20.).expand(400,1,2,20), settings=dict(sr=1000, hop_length=100))
    crop = CropTime(900)
    assert crop(sg).width==10  # no n_fft: fastaudio's rule
    assert {*crop(sg, split_idx=0).plain()[:,0,0,0].tolist()}=={*range(11)} and {*crop(sg, split_idx=1).plain()[:,0,0,0].tolist()}=={5}
    same(crop(sg, split_idx=1), crop(sg, split_idx=1))

def test_crops_of_coefficients_and_of_a_batch_keep_to_the_real_part():
    mf = AudioToMFCC(n_mfcc=5, melkwargs=dict(n_fft=256, hop_length=64, n_mels=10))
    xb = torch.stack(PadAudio()([mf(noise(1,n,seed=n)) for n in (3200,1600,640)]))
    y = CropTime(200, AudioPadType.Zeros_After)(xb)
    assert y.width==n_frames(1600,256,64)==26 and y.lengths.tolist()==[26,26,11] and torch.isfinite(y).all()
    for i in (0,1,2):
        for k in range(int(y.lengths[i])): assert (y.plain()[i,...,k,None]==xb.plain()[i,...,:int(xb.lengths[i])]).all(-2).any()

def test_a_wrong_pad_mode_is_refused_when_used():
    t = CropTime(12000, pad_mode='zerosafter')
    with pytest.raises(ValueError, match="pad_mode: expected one of .*got 'zerosafter'"): t(a_spec(1))

# ---- Delta

@pytest.mark.parametrize('width', [3,5,9,15])
@pytest.mark.parametrize('order', [1,2])
def test_slopes_are_librosas(width, order):
    librosa = pytest.importorskip('librosa')
    x = torch.randn(2,3,7,40)
    want = torch.from_numpy(librosa.feature.delta(x.numpy(), width=width, order=order))
    torch.testing.assert_close(delta(x, width, order), want, rtol=1e-5, atol=1e-5)

@pytest.mark.parametrize('mode', ['replicate','reflect','constant','circular'])
def test_regression_is_torchaudios(mode):
    F = pytest.importorskip('torchaudio.functional')
    x = torch.randn(2,2,6,30)
    sg = AudioSpectrogram.create(x)
    d = F.compute_deltas(x, win_length=7, mode=mode)
    want = torch.cat([x, d, F.compute_deltas(d, win_length=7, mode=mode)], 1)
    torch.testing.assert_close(DeltaGPU(7,mode)(sg).plain(), want, rtol=1e-5, atol=1e-5)

@pytest.mark.parametrize('mode', ['interp','replicate','reflect','constant','circular'])
def test_ends_are_those_of_the_real_part(mode):
    x = torch.randn(3,2,6,30); ln = torch.tensor([30,9,17])
    for order in (1,2):
        y = delta(x, 9, order, mode, ln)
        for i,n in enumerate(ln):
            torch.testing.assert_close(y[i,...,:n], delta(x[i,...,:n], 9, order, mode), rtol=1e-6, atol=1e-6)
            assert (y[i,...,n:]==0).all()
    junk = x.clone(); junk[1,...,9:] = float('nan')
    assert torch.equal(delta(x, 9, 1, mode, ln), delta(junk, 9, 1, mode, ln))

def test_delta_channels_stand_where_they_did():
    sg = a_spec(2); y,z = Delta(5)(sg),DeltaGPU(5)(sg)
    p = sg.plain()
    assert y.shape==z.shape==(6,*sg.shape[1:])
    want = [f(c) for c in (p[:1],p[1:]) for f in (lambda c: c, lambda c: delta(c,5,1), lambda c: delta(c,5,2))]
    for i,o in enumerate(want): assert torch.allclose(y.plain()[i], o[0])
    assert torch.equal(z.plain()[:2], p) and torch.allclose(z.plain()[2:4], delta(p,5,1,'replicate'))
    assert len({str(fingerprint(o[None])) for o in (sg,y,z,Delta(7)(sg))})==4 and y.silent is not None
    with pytest.raises(ValueError, match="width: 9 frames with mode 'interp' need items of at least 9 frames, got 8"):
        Delta()(AudioSpectrogram.create(torch.randn(1,4,8)))
    for o in (0,3,True): pytest.raises(ValueError, delta, p, 5, o).match('order: expected 1 or 2')

def test_silence_has_no_slope():
    items = [Delta(5)(a_spec(1)), Delta(5)(a_spec(1, n=1600))], [DeltaGPU(5)(a_spec(2)), DeltaGPU(5)(a_spec(2, n=1600))]
    for it,base in zip(items, ([0],[0,1])):
        o = PadAudio()(it)[0].plain()[...,-1]
        for c in range(len(o)): assert (o[c]==(-100 if c in base else 0)).all()

# ---- TfmResize

@pytest.mark.parametrize('mode', ['bilinear','bicubic','nearest','nearest-exact','area'])
def test_resized_spectrograms_keep_their_axes(mode):
    sg = torch.stack(PadAudio()([a_spec(1), a_spec(1, n=400)]))
    y = TfmResize((16,20), mode)(sg)
    assert y.shape==(2,1,16,20) and len(y.freqs)==16 and y.duration==pytest.approx(sg.duration)
    assert y.silent is None and y.settings['resized']==[16,20,mode]
    assert y.lengths.tolist()==[20,-(-13*20//26)] and list(y.freqs)==sorted(y.freqs) and sg.freqs[0]<=y.freqs[0]<y.freqs[-1]<=sg.freqs[-1]
    # what rows hold is what they are called
    f = AudioSpectrogram.create(torch.tensor(sg.freqs)[None,:,None].expand(1,33,9), freqs=sg.freqs)
    if mode=='bilinear': torch.testing.assert_close(TfmResize((16,9))(f).plain()[0,:,0], torch.tensor(y.freqs), rtol=1e-5, atol=1e-3)
    assert fingerprint(y)!=fingerprint(sg) and TfmResize(12)(sg).shape[-2:]==(12,12)
    ma = AudioSpectrogram.create(torch.rand(1,4,9))
    assert TfmResize(5)(ma).settings=={'resized':[5,5,'bilinear']}

# ---- in a DataBlock

def _dls(path, workers=0, type_tfms=(), item_tfms=(), batch_tfms=(), bs=8):
    df = pd.read_csv(path/'meta'/'synthetic.csv').iloc[:40]
    x = AudioBlock(crop_signal_to=500); x.type_tfms = [*x.type_tfms, *type_tfms]
    block = DataBlock(blocks=(x, CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'),
                      splitter=CrossValidationSplitter(fold=1), item_tfms=list(item_tfms), batch_tfms=list(batch_tfms))
    return block.dataloaders(df, bs=bs, num_workers=workers)

A2S = lambda: AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, n_mels=20))
PLACES = {'none':{}, 'item':dict(item_tfms=lambda: [AddNoise(.5,p=1),ChangeVolume(1,2,3)]),
          'type':dict(type_tfms=lambda: [ChangeVolume(1,2,3)]),
          'batch':dict(batch_tfms=lambda: [AddNoiseGPU(1,.5,.9), ChangeVolume(1,2,3), A2S(), MaskFreq(2,5,val=50.)]),
          'masks':dict(batch_tfms=lambda: [A2S(), SignalShifter(1,.5), MaskTimeGPU(3,2,9), AddNoiseGPU(1,.5,.9)])}

class _Always(AddNoise):
    "Random at validation too"
    split_idx = None

@pytest.mark.parametrize('workers', [0,2])
@pytest.mark.parametrize('place', [k for k in PLACES if k!='none'])
def test_augmentations_are_not_in_the_statistics_nor_in_validation(synthetic, place, workers):
    def make(place, w=0):
        kw = {k:f() for k,f in PLACES[place].items()}
        kw['batch_tfms'] = [*kw.get('batch_tfms', [A2S()]), SpecNormalize()]
        return _dls(synthetic, w, **kw)
    plain,dls = make('none'),make(place, workers)
    a,b = (next(t for t in d.after_batch.fs if isinstance(t, SpecNormalize)) for d in (plain,dls))
    assert torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)
    pipes = dls.train.after_item,dls.train.after_batch,dls.train.dataset.tls[0].tfms
    was = [list(p.fs) for p in pipes]
    assert any(getattr(t, 'augments', False) for fs in was for t in fs)
    s = collect_stats(dls, quantiles=False).reduce('global')
    assert torch.equal(s.mean, a.mean) and [list(p.fs) for p in pipes]==was
    for (x,_),(y,_) in zip(plain.valid, dls.valid, strict=True): assert torch.equal(x.plain(), y.plain())
    x,y = (d.test_dl(list(dls.valid_ds.items.iloc[:8].iloc)).one_batch()[0].plain() for d in (plain,dls))
    assert torch.equal(x, y)
    x,y = (torch.cat([x.plain() for x,_ in d.train.new(shuffle=False)]) for d in (plain,dls))
    assert not torch.allclose(x, y)

def test_one_that_acts_at_validation_too_is_left_out_and_put_back(synthetic):
    dls = _dls(synthetic, item_tfms=[_Always(5.,p=1)], batch_tfms=[A2S()])
    a,b = (collect_stats(d, quantiles=False).reduce('global') for d in (_dls(synthetic, batch_tfms=[A2S()]), dls))
    assert torch.equal(a.mean, b.mean) and any(isinstance(t, _Always) for t in dls.train.after_item.fs)
    dls.train.after_batch.fs.append(_raise)
    with pytest.raises(RuntimeError, match='as planned'): collect_stats(dls, quantiles=False)
    assert any(isinstance(t, _Always) for t in dls.train.after_item.fs)
def _raise(x, **kw): raise RuntimeError('as planned')

def test_files_with_augmentations_among_their_transforms(synthetic):
    files = sorted((synthetic/'audio').iterdir())[:6]
    lists = [A2S()],[ChangeVolume(1,2,3),_Always(5.,p=1),A2S(),MaskFreq(1,3)]
    a,b = (collect_stats(files, tfms=t, quantiles=False, progress=False).reduce('global') for t in lists)
    assert torch.equal(a.mean, b.mean)

def test_transforms_of_plain_lists_are_left_out_too(synthetic):
    from fastai.data.all import DataLoaders,TfmdLists
    def make(*ts):
        tl = TfmdLists(sorted((synthetic/'audio').iterdir())[:6], [OpenAudio(), ResizeSignal(500), *ts, A2S()])
        tl.tfms.split_idx = 0
        return DataLoaders.from_dsets(tl, tl, bs=3, num_workers=0)
    a,b = (collect_stats(d, quantiles=False).reduce('global') for d in (make(),make(_Always(5.,p=1))))
    assert torch.equal(a.mean, b.mean)

def test_training_follows_the_seed(synthetic):
    def first():
        set_seed(7)
        dls = _dls(synthetic, item_tfms=[AddNoise(.5,p=.5)], batch_tfms=[A2S(), MaskTimeGPU()])
        return dls.train.new(shuffle=False).one_batch()[0].plain()
    assert torch.equal(first(), first())

def test_random_ones_say_so():
    assert all(t.augments for t in (*SIGNAL.values(),*SPEC.values()))
    assert not any(getattr(t, 'augments', False) for t in (*MORE.values(),*FIXED.values()))

def test_changed_speed_moves_pitch_and_length_together():
    sr,hz = 8000,500
    x = AudioTensor(torch.sin(2*np.pi*hz*torch.arange(2*sr)/sr)[None].repeat(2, 1), sr=sr, fn='a.wav')
    torch.manual_seed(0)
    factors = []
    for _ in range(40):
        y = ChangeSpeed(p=1, max_factor=2.)(x)
        f = x.shape[-1]/y.shape[-1]
        peak = torch.fft.rfft(y.plain()[0]).abs().argmax().item()*sr/y.shape[-1]
        assert abs(peak/hz/f-1)<.01 and y.sr==sr and y.shape[0]==2 and y.fn=='a.wav' and torch.equal(y[0], y[1])
        factors.append(np.log2(f))
    assert -1<=min(factors)<-.7 and .7<max(factors)<=1 and abs(np.mean(factors))<.3  # even on a logarithmic scale

def test_speed_is_changed_in_training_alone_and_drawn_from_the_seed():
    x = AudioTensor(torch.randn(1, 4000), sr=8000)
    t = ChangeSpeed(p=1, max_factor=1.5)
    assert torch.equal(t(x, split_idx=1), x) and torch.equal(ChangeSpeed(p=0)(x), x) and torch.equal(ChangeSpeed(p=1, max_factor=1)(x), x)
    torch.manual_seed(3); a = t(x, split_idx=0)
    torch.manual_seed(3); b = t(x, split_idx=0)
    assert torch.equal(a, b) and a.shape!=x.shape
    assert sum(ChangeSpeed(p=.5)(x).shape==x.shape for _ in range(100)) in range(25, 75)
    with pytest.raises(ValueError, match='it belongs into item_tfms'): t(AudioTensor(torch.randn(2, 1, 4000), sr=8000))
    with pytest.raises(ValueError, match='max_factor: expected a number of 1 to 4'): ChangeSpeed(max_factor=.8)

def test_statistics_see_no_changed_speed(tmp_path):
    df = read_table(synthetic_audio(tmp_path, n=24, seconds=.5))
    valid = split_masks(df, 1)
    st = [collect_stats(experiment_dls(df, valid, None, duration=.5, crop='center', bs=8, speed=v), progress=False) for v in (None,2.)]
    assert torch.equal(st[0].mean, st[1].mean)
    longest = [max(x.lengths.max().item() for x,_ in experiment_dls(df, valid, None, duration=1., bs=8, speed=v).train) for v in (None,2.)]
    assert longest[1]>1.2*longest[0]
