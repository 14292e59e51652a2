"The maths against independent implementations, and items against the batch that they are in"
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given,strategies as st

from specnorm_fastai.functional import (dct_matrix,denormalize,extend,from_db,mel_filters,mel_frequencies,n_frames,normalize,spectrogram,
                                        standardize,to_db)

def torchaudio():
    try: return pytest.importorskip('torchaudio', exc_type=ImportError)
    except (RuntimeError,OSError) as e: pytest.skip(f'torchaudio does not import: {e}')  # built for another torch

def rand(*shape, seed=0, dtype=torch.float64): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)

def padded(clips, n=None):
    "Clips (..., time) of several lengths in one batch, with noise behind their ends, and the lengths"
    n = n or max(c.shape[-1] for c in clips)
    x = torch.stack([torch.cat([c, 9*rand(*c.shape[:-1], n-c.shape[-1], seed=7, dtype=c.dtype)], -1) for c in clips])
    return x,torch.tensor([c.shape[-1] for c in clips])

# ---- extend

NP_MODE = dict(reflect='reflect', constant='constant', replicate='edge', circular='wrap')

@pytest.mark.parametrize('mode', NP_MODE)
@given(ns=st.lists(st.integers(8,30), min_size=1, max_size=5), pad=st.integers(0,7), extra=st.integers(0,9), ch=st.integers(0,2))
def test_extend_is_numpys_pad_of_each_item(mode, ns, pad, extra, ch):
    clips = [rand(*[2]*ch, n, seed=n) for n in ns]
    x,ln = padded(clips, max(ns)+extra)
    y = extend(x, pad, ln.reshape(-1,*[1]*ch), mode)
    assert y.shape==(*x.shape[:-1], x.shape[-1]+2*pad)
    for o,c in zip(y, clips):
        want = np.pad(c.numpy(), [(0,0)]*ch+[(pad,pad)], mode=NP_MODE[mode])
        assert np.array_equal(o[...,:want.shape[-1]], want)
        if pad: assert (o[...,want.shape[-1]:]==0).all()
    if len(set(ns))==1 and not extra: assert torch.equal(extend(x, pad, None, mode), y)

def test_extend_refuses_an_unknown_mode():
    for ln in (None,torch.tensor([5,9])):
        with pytest.raises(ValueError, match="mode: expected one of .*'reflect'.*got 'mirror'"): extend(rand(2,9), 2, ln, 'mirror')

# ---- spectrogram

def np_spectrogram(x, n_fft, win, hop, pad, center, power, normalized, pad_mode, window):
    "The textbook in float64"
    x = np.pad(x, pad)
    if center: x = np.pad(x, n_fft//2, mode=NP_MODE[pad_mode])
    w = np.zeros(n_fft); at = (n_fft-win)//2
    w[at:at+win] = window(win+1)[:-1]  # periodic
    frames = np.stack([x[i:i+n_fft]*w for i in range(0, len(x)-n_fft+1, hop)])
    s = np.abs(np.fft.rfft(frames))/(np.sqrt((w**2).sum()) if normalized else 1)
    return (s**power).T

GRID = [(64,64,32),(64,None,None),(64,40,10),(65,65,20),(64,64,64),(64,33,100),(128,128,1)]

@pytest.mark.parametrize('n_fft,win,hop', GRID)
@pytest.mark.parametrize('center,pad_mode', [(True,'reflect'),(True,'constant'),(True,'replicate'),(True,'circular'),(False,'reflect')])
@pytest.mark.parametrize('power,normalized,pad', [(2.,False,0),(1.,True,0),(2.,True,7),(.5,False,3)])
def test_spectrogram_is_the_textbooks(n_fft, win, hop, center, pad_mode, power, normalized, pad):
    x = rand(2,1,333)
    y = spectrogram(x, n_fft, win, hop, pad=pad, power=power, normalized=normalized, center=center, pad_mode=pad_mode)
    win = win or n_fft; hop = hop or win//2
    assert y.shape[-1]==n_frames(333, n_fft, hop, center, pad)
    for o,c in zip(y, x):
        want = np_spectrogram(c[0].numpy(), n_fft, win, hop, pad, center, power, normalized, pad_mode, np.hanning)
        # as magnitudes, up to 40 here; the window is rounded to float32
        np.testing.assert_allclose(o[0]**(1/power), want**(1/power), rtol=1e-6, atol=1e-5)

def test_spectrogram_takes_any_window_and_its_arguments():
    x = rand(1,300)
    want = np_spectrogram(x[0].numpy(), 64, 64, 32, 0, True, 2., False, 'reflect', lambda n: np.kaiser(n, 9.))
    y = spectrogram(x, 64, window_fn=torch.kaiser_window, wkwargs=dict(periodic=True, beta=9.))[0]
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-4)  # the window is rounded to float32
    want = np_spectrogram(x[0].numpy(), 64, 64, 32, 0, True, 2., False, 'reflect', np.hamming)
    np.testing.assert_allclose(spectrogram(x, 64, window_fn=torch.hamming_window)[0], want, rtol=1e-4, atol=1e-4)
    assert spectrogram(x, 64, onesided=False).shape==(1,64,10)

def test_windows_of_different_settings_do_not_collide():
    x = rand(1,400)
    make = lambda b: spectrogram(x, 64, window_fn=torch.kaiser_window, wkwargs=dict(periodic=True, beta=b))
    first = {b:make(b) for b in (1.,9.)}
    for b in (9.,1.): assert torch.equal(make(b), first[b])
    assert not torch.equal(first[1.], first[9.])
    assert spectrogram(x.float(), 64).dtype==torch.float32 and spectrogram(x, 64).dtype==torch.float64

def test_power_is_parsevals():
    x = rand(1,640)  # windows side by side: their energies add up to that of the signal
    s = spectrogram(x, 64, hop_length=64, window_fn=torch.ones, center=False, onesided=False)
    assert s.sum().item()/64==pytest.approx((x**2).sum().item(), rel=1e-12)

@pytest.mark.parametrize('n_fft,win,hop', [(64,64,32),(64,40,10),(65,65,20),(64,64,77)])
@pytest.mark.parametrize('center,pad_mode', [(True,'reflect'),(True,'constant'),(True,'replicate'),(True,'circular'),(False,'reflect')])
@pytest.mark.parametrize('pad', [0,5])
def test_padded_item_has_the_frames_that_it_has_alone(n_fft, win, hop, center, pad_mode, pad):
    ns = [n_fft+k for k in range(hop)]+[n_fft+5*hop]  # every remainder by the hop
    clips = [rand(2,n,seed=n) for n in ns]
    args = dict(n_fft=n_fft, win_length=win, hop_length=hop, center=center, pad_mode=pad_mode, pad=pad)
    for extra in (0,3*n_fft):
        x,ln = padded(clips, max(ns)+extra)
        y = spectrogram(x, lengths=ln[:,None], **args)
        for o,c,k in zip(y, clips, n_frames(ln, n_fft, hop, center, pad).tolist()):
            alone = spectrogram(c, **args)
            assert alone.shape[-1]==k
            # same float64 numbers; an FFT over more rows may round otherwise
            torch.testing.assert_close(o[...,:k], alone, rtol=1e-9, atol=1e-9)
            assert (o[...,k:]==0).all()  # behind it is silence

def test_a_clip_too_short_to_be_mirrored_is_refused_alone_and_in_a_batch():
    x,ln = padded([rand(10), rand(300)])
    with pytest.raises(ValueError, match='more than pad=32 samples to reflect, got 10'): spectrogram(x, 64, lengths=ln)

@given(st.integers(1,500), st.sampled_from([32,33,64]), st.integers(1,80), st.booleans(), st.integers(0,9))
def test_n_frames_is_how_many_come(n, n_fft, hop, center, pad):
    if n+2*pad<=n_fft//2 and center or n+2*pad<n_fft and not center:
        assert center or n_frames(n, n_fft, hop, center, pad)==0
        return
    k = spectrogram(rand(1,n), n_fft, hop_length=hop, center=center, pad=pad).shape[-1]
    assert n_frames(n, n_fft, hop, center, pad)==k
    assert n_frames(torch.tensor([n,n]), n_fft, hop, center, pad).tolist()==[k,k]

# a few steps of the input's precision
@pytest.mark.parametrize('dtype,rtol', [(torch.float32,1e-4), (torch.float16,2e-2), (torch.bfloat16,2e-1)])
def test_spectrogram_of_a_lower_precision_is_near(dtype, rtol):
    x = rand(1,400).to(dtype)
    y = spectrogram(x, 64)
    assert y.dtype==torch.float32
    want = spectrogram(x.double(), 64)  # of the same rounded samples
    torch.testing.assert_close(y.double(), want, rtol=1e-4, atol=1e-3)
    assert ((spectrogram(rand(1,400), 64)-want).abs().sum()/want.sum())<rtol

@pytest.mark.parametrize('power', [0, -1., None])
def test_bad_power_is_refused(power):
    with pytest.raises(ValueError, match='power: expected a number above 0'): spectrogram(rand(1,400), 64, power=power)

def test_spectrogram_has_a_gradient_at_silence():
    x = torch.zeros(1,400, requires_grad=True)
    spectrogram(x, 64).sum().backward()
    assert torch.isfinite(x.grad).all()

@pytest.mark.parametrize('kw', [dict(), dict(power=1.), dict(normalized=True), dict(win_length=40), dict(center=False), dict(pad=9),
                                dict(hop_length=10)])
def test_spectrogram_is_torchaudios(kw):
    ta,x = torchaudio(),rand(2,1,1000).float()
    # float32 on both sides
    torch.testing.assert_close(spectrogram(x, 64, **kw), ta.transforms.Spectrogram(64, **kw)(x), rtol=1e-4, atol=1e-4)

# ---- decibels

@given(st.floats(1e-9,1e6), st.sampled_from([10.,20.]), st.floats(1e-3,1e3))
def test_from_db_inverts_to_db_above_the_floor(v, mult, ref):
    x = torch.tensor([v], dtype=torch.float64)
    assert to_db(x, mult, ref=ref).item()==pytest.approx(mult*math.log10(v/ref), abs=1e-9)
    assert from_db(to_db(x, mult, ref=ref), mult, ref).item()==pytest.approx(v, rel=1e-9)

def test_floor_is_amin():
    x = torch.tensor([0.,1e-20,1e-10,1e-9,1.], dtype=torch.float64)
    assert to_db(x).tolist()==pytest.approx([-100,-100,-100,-90,0])
    assert to_db(x, amin=1e-5).tolist()==pytest.approx([-50,-50,-50,-50,0])
    assert from_db(to_db(x)).tolist()==pytest.approx([1e-10,1e-10,1e-10,1e-9,1])

@pytest.mark.parametrize('shape', [(3,4,5),(2,1,4,5),(3,2,4,5),(2,3,1,4,5)])
def test_top_db_is_cut_for_each_item_whatever_the_rank(shape):
    quieter = torch.arange(shape[0], dtype=torch.float64).reshape(-1,*[1]*(len(shape)-1))*3
    x = 10**(rand(*shape)*4-quieter)
    y = to_db(x, top_db=30.)
    items,want = x.reshape(-1,*shape[-3:]),to_db(x).reshape(-1,*shape[-3:])
    for o,i,w in zip(y.reshape(-1,*shape[-3:]), items, want):
        torch.testing.assert_close(o, w.clamp(min=w.max()-30))
        assert o.max()-o.min()<=30+1e-9 and torch.equal(o, to_db(i, top_db=30.))  # an item is the last three dims, alone or in a batch
    if len(shape)>3: assert not torch.allclose(y, to_db(x).clamp(min=to_db(x).max()-30))  # a cut by the batch would show

def test_top_db_refuses_a_negative_and_allows_zero():
    with pytest.raises(ValueError, match='top_db'): to_db(rand(3,4,5).abs(), top_db=-1.)
    y = to_db(rand(3,4,5).abs(), top_db=0.)
    assert (y==y.max()).all()

# ---- mel and cosine transform

MELS = [(16000,400,40,0.,None),(16000,1024,128,50.,8000.),(8000,256,20,100.,3500.),(44100,2048,64,0.,None),(16000,400,128,0.,None)]

def mel_grid(f):
    marks = [pytest.mark.parametrize('sr,n_fft,n_mels,f_min,f_max', MELS), pytest.mark.parametrize('scale', ['htk','slaney']),
        pytest.mark.parametrize('norm', [None,'slaney']), pytest.mark.filterwarnings('ignore:.*mel filter')]  # bands too narrow for the FFT
    for m in marks: f = m(f)
    return f

@mel_grid
def test_mel_filters_are_librosas(sr, n_fft, n_mels, f_min, f_max, scale, norm):
    import librosa
    fb = mel_filters(sr, n_fft, n_mels, f_min, f_max, norm, scale, dtype=torch.float64)
    assert fb.shape==(n_mels, n_fft//2+1) and (fb>=0).all()
    want = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=scale=='htk', norm=norm, dtype=np.float64)
    np.testing.assert_allclose(fb, want, atol=1e-12)

@mel_grid
def test_mel_filters_are_torchaudios(sr, n_fft, n_mels, f_min, f_max, scale, norm):
    fb = mel_filters(sr, n_fft, n_mels, f_min, f_max, norm, scale, dtype=torch.float64)
    ta = torchaudio().functional.melscale_fbanks(n_fft//2+1, f_min, f_max or sr/2, n_mels, sr, norm=norm, mel_scale=scale).T
    # torchaudio computes in float32: a step at 8 kHz over a band of a few Hz
    np.testing.assert_allclose(fb, ta, atol=1e-3*float(fb.max()))

def test_mel_filters_are_triangles_of_the_formula():
    "HTK: mel = 2595 log10(1+f/700); filters of height 1 whose feet are their neighbours' centres"
    hz = 700*(10**(np.linspace(0, 2595*np.log10(1+8000/700), 22)/2595)-1)
    f = np.arange(513)*16000/1024
    want = np.stack([np.clip(np.minimum((f-a)/(b-a), (c-f)/(c-b)), 0, None) for a,b,c in zip(hz, hz[1:], hz[2:])])
    np.testing.assert_allclose(mel_filters(16000, 1024, 20, dtype=torch.float64), want, atol=1e-12)
    np.testing.assert_allclose(mel_frequencies(16000, 20), hz[1:-1], rtol=1e-12)

def test_mel_filters_of_different_settings_do_not_collide():
    made = {k:mel_filters(*k) for k in ((16000,512,20,0.,8000.),(16000,512,20,0.,None),(16000,512,20,0.,4000.),(22050,512,20,0.,8000.))}
    for k,v in made.items(): assert torch.equal(mel_filters(*k), v)
    assert not torch.equal(made[16000,512,20,0.,8000.], made[22050,512,20,0.,8000.])
    assert mel_filters(16000, 512, 20, dtype=torch.float64).dtype==torch.float64

def test_empty_mel_filters_warn():
    with pytest.warns(UserWarning, match=r'of 127 mel filters hold no frequency'): mel_filters(16000, 400, 127, f_min=1.)

@pytest.mark.parametrize('kw,what', [(dict(f_min=8000.),'f_min'),(dict(f_min=-1.),'f_min'),(dict(f_min=500.,f_max=400.),'f_min < f_max'),
    (dict(n_mels=0),'n_mels'),(dict(mel_scale='bark'),'mel_scale'),(dict(norm='area'),'norm')])
def test_bad_mel_settings_are_named(kw, what):
    with pytest.raises(ValueError, match=what): mel_filters(16000, 512, **kw)

dcts = pytest.mark.parametrize('n_mfcc,n_mels,norm', [(n,m,o) for n,m in ((13,40),(40,40),(1,128),(40,128)) for o in ('ortho',None)])

@dcts
def test_dct_is_the_formula_and_scipys(n_mfcc, n_mels, norm):
    from scipy.fft import dct
    m,x = dct_matrix(n_mfcc, n_mels, norm, dtype=torch.float64),rand(n_mels,7)
    np.testing.assert_allclose(m@x, dct(x.numpy(), type=2, axis=0, norm=norm)[:n_mfcc], atol=1e-10)
    k,n = np.arange(n_mfcc)[:,None],np.arange(n_mels)
    want = 2*np.cos(np.pi*k*(2*n+1)/(2*n_mels))
    if norm=='ortho': want *= np.where(k==0, np.sqrt(1/(4*n_mels)), np.sqrt(1/(2*n_mels)))
    np.testing.assert_allclose(m, want, atol=1e-12)

@dcts
def test_dct_is_torchaudios(n_mfcc, n_mels, norm):
    ta = torchaudio().functional.create_dct(n_mfcc, n_mels, norm).T
    torch.testing.assert_close(dct_matrix(n_mfcc, n_mels, norm), ta, rtol=1e-4, atol=2e-5)  # torchaudio computes in float32

@pytest.mark.parametrize('n,norm,what', [(0,'ortho','n_mfcc'),(41,'ortho','n_mfcc'),(4,'slaney','norm')])
def test_bad_dct_settings_are_named(n, norm, what):
    with pytest.raises(ValueError, match=what): dct_matrix(n, 40, norm)

# ---- normalizing

DTYPES = [(torch.float64,1e-12), (torch.float32,1e-5), (torch.float16,5e-3), (torch.bfloat16,4e-2)]  # a few steps of each precision

@pytest.mark.parametrize('dtype,tol', DTYPES)
@pytest.mark.parametrize('shape', [(1,1,1,1),(1,1,5,1),(1,2,1,1),(1,2,5,1)])
def test_denormalize_inverts_normalize(dtype, tol, shape):
    x = (rand(3,2,5,7)*20-40).to(dtype)
    m,s = rand(*shape)*5-40,rand(*shape).abs()+20
    y = normalize(x, m, s)
    assert y.dtype==dtype
    torch.testing.assert_close(y.double(), (x.double()-m)/s, rtol=tol, atol=tol)
    torch.testing.assert_close(denormalize(y, m, s).double(), x.double(), rtol=tol, atol=100*tol)  # |x| is up to 100

def np_standardize(x): return (x-x.mean(-1,keepdims=True))/x.std(-1,ddof=1,keepdims=True)

@pytest.mark.parametrize('dtype,tol', DTYPES)
@pytest.mark.parametrize('shape', [(50,),(2,50),(3,1,50),(3,2,50)])
def test_standardize_is_numpys_for_each_row(dtype, tol, shape):
    x = (rand(*shape)*.1+.3).to(dtype)
    y = standardize(x)
    assert y.dtype==dtype and y.shape==x.shape
    np.testing.assert_allclose(y.double(), np_standardize(x.double().numpy()), rtol=tol, atol=tol)

def test_standardize_keeps_channels_and_items_apart():
    x = rand(3,2,50)
    y = standardize(x)
    louder = x.clone(); louder[1,0] = louder[1,0]*1e3+5
    z = standardize(louder)
    keep = torch.ones(3,2, dtype=torch.bool); keep[1,0] = False
    assert torch.equal(z[keep], y[keep])
    torch.testing.assert_close(z, y)  # nor does level or offset matter

@given(st.lists(st.integers(2,40), min_size=1, max_size=5), st.integers(0,30), st.sampled_from([torch.float64,torch.float32,torch.float16]))
def test_padding_changes_no_real_sample(ns, extra, dtype):
    clips = [(rand(2,n,seed=n)*.1+.2).to(dtype) for n in ns]
    x,ln = padded(clips, max(ns)+extra)
    y = standardize(x, ln[:,None])
    for o,c in zip(y, clips):
        n = c.shape[-1]
        # sums over more zeros may be added up in another order, in float64, then rounded to the dtype
        tol = 1e-3 if dtype==torch.float16 else 1e-6
        torch.testing.assert_close(o[...,:n], standardize(c), rtol=tol, atol=tol)
        assert (o[...,n:]==0).all()

@pytest.mark.parametrize('n', [5*16000,10*16000])
def test_clip_padded_to_any_length_has_equal_real_samples(n):
    x = rand(1,40000).float()*.1
    y = standardize(F.pad(x, (0,n-40000)), torch.tensor([40000]))
    torch.testing.assert_close(y[...,:40000], standardize(x), rtol=0, atol=1e-6)  # a step of float32 at 4
    assert (y[...,40000:]==0).all()

@pytest.mark.parametrize('dtype', [d for d,_ in DTYPES])
@pytest.mark.parametrize('value', [0.,.7,-1.,1e4])
@pytest.mark.parametrize('n', [1,2,1000])
def test_what_never_moves_becomes_zeros(dtype, value, n):
    x = torch.full((2,n), value, dtype=dtype)
    assert (standardize(x)==0).all()
    x = torch.cat([x, rand(2,5).to(dtype)], -1)
    assert (standardize(x, torch.tensor([n,n]))==0).all()

def test_silent_row_leaves_the_others_alone():
    x = rand(3,2,50); x[1,1] = 0
    y = standardize(x)
    assert (y[1,1]==0).all() and torch.isfinite(y).all() and torch.equal(y[0], standardize(x[0]))
    assert standardize(rand(2,0)).shape==(2,0)
    assert (standardize(rand(2,9), torch.tensor([0,9]))[0]==0).all()

@pytest.mark.parametrize('span,zero', [(1e-8,True),(1e-7,False)])
def test_threshold_is_peak_to_peak(span, zero):
    x = torch.tensor([0.,span,0.,span], dtype=torch.float64)
    assert bool((standardize(x)==0).all())==zero

def test_standardize_has_no_overflow_in_half():
    x = (rand(1,100000)*1000).half()  # a sum of squares far above 65504
    y = standardize(x)
    assert torch.isfinite(y).all() and y.double().std().item()==pytest.approx(1, abs=1e-3)

@pytest.mark.parametrize('dims', [(0,1,3),(0,1,2,3)])
def test_normalize_of_a_spectrogram_is_that_of_its_numbers(dims, monkeypatch):
    "By the same kernel, and it keeps its type and what it knows"
    import specnorm_fastai.functional as F
    from specnorm_fastai.core import AudioSpectrogram
    x = torch.randn(3,1,80,200, generator=torch.Generator().manual_seed(0))*9-40
    sg = AudioSpectrogram(x.clone(), settings=dict(sr=16000, to_db=True), freqs=range(80), lengths=[200,150,3], fn=['a','b','c'], silent=torch.zeros(3,200, dtype=torch.bool))
    m,s = x.mean(dims, keepdim=True),x.std(dims, keepdim=True)
    by,of = [],F._compiled_affine
    def spy(*a): res = of(*a); by.append(res is not None); return res
    monkeypatch.setattr(F, '_compiled_affine', spy)
    for f in (F.normalize, F.denormalize):
        want,got = f(x, m, s),f(sg, m, s)
        assert type(got) is AudioSpectrogram and torch.equal(got.plain(), want) and got.data_ptr()!=sg.data_ptr()
        assert (got.settings,got.freqs,got.fn)==(sg.settings,sg.freqs,sg.fn) and got.lengths.tolist()==[200,150,3] and torch.equal(got.silent, sg.silent)
        assert torch.equal(f(sg, sg.mean(dims, keepdim=True), sg.std(dims, keepdim=True)).plain(), f(x, m, s))  # statistics of the same type
    assert len(set(by))==1, by  # all by the kernel, or none where it is off
    want = F.normalize(x, m, s)
    assert F.normalize_(sg, m, s) is sg and torch.equal(sg.plain(), want) and sg.lengths.tolist()==[200,150,3]
    assert torch.equal(F.denormalize_(sg, m, s).plain(), F.denormalize(want, m, s))
    assert len(set(by))==1, by

def test_normalize_broadcasts_what_is_larger_than_x():
    from specnorm_fastai.functional import normalize
    x = torch.randn(1,1,200,300); m,s = torch.randn(2,1,200,1),torch.rand(2,1,200,1)+.5
    torch.testing.assert_close(normalize(x, m, s), (x-m)/s)
