"Mel, gammatone and linear filters, power law, decibels and cepstra, against scipy, torchaudio, librosa and nnAudio; as configurations"
import warnings
import librosa,numpy as np,pytest,torch
from hypothesis import given,settings,strategies as st
from scipy.signal import freqz,gammatone

from specnorm_fastai.core import AudioTensor
from specnorm_fastai.data import PadAudio
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.functional import *
from specnorm_fastai.specstats import fingerprint

pytestmark = pytest.mark.filterwarnings('ignore:.*filters hold no frequency','ignore:.*[Ee]mpty filters','ignore:.*all zero values')

def torchaudio():
    try: return pytest.importorskip('torchaudio', exc_type=ImportError)
    except (RuntimeError,OSError) as e: pytest.skip(f'torchaudio does not import: {e}')  # built for another torch

def noise(*shape, sr=16000, seed=0, **kw): return AudioTensor(torch.randn(*shape, generator=torch.Generator().manual_seed(seed))*.1, sr=sr, **kw)
def erb_rate(f): return 21.4*np.log10(1+.00437*np.asarray(f))
def erb(f): return 24.7*(1+.00437*np.asarray(f))
bins = lambda sr,n_fft: np.arange(n_fft//2+1)*sr/n_fft

# ---- filters

@given(sr=st.sampled_from([8000,16000,22050,44100]), n_fft=st.integers(64, 2048), n=st.integers(1, 100), lo=st.floats(0, 2000), span=st.floats(100, 3000)|st.none(), norm=st.sampled_from([None,'slaney']), scale=st.sampled_from(['htk','slaney']))
@settings(max_examples=30)
def test_mel_filters_are_librosas_and_torchaudios(sr, n_fft, n, lo, span, norm, scale):
    hi = sr/2 if span is None else min(lo+span, sr/2)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        got = mel_filters(sr, n_fft, n, lo, hi, norm, scale, dtype=torch.float64).numpy()
        want = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n, fmin=lo, fmax=hi, htk=scale=='htk', norm=norm, dtype=np.float64)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)
        if n_fft%2: return  # torchaudio puts the last bin at sr/2 for odd sizes too
        ta = torchaudio().functional.melscale_fbanks(n_fft//2+1, lo, hi, n, sr, norm, scale).T.numpy()
    np.testing.assert_allclose(got, ta, rtol=0, atol=2e-3*max(ta.max(), got.max()))  # float32 edges in Hz under narrow filters

@given(sr=st.sampled_from([8000,16000,44100]), n=st.integers(2, 200), lo=st.floats(0, 1000), hi=st.floats(1500, 30000)|st.none())
def test_gammatone_centres_are_at_equal_erb_steps(sr, n, lo, hi):
    c = gammatone_frequencies(sr, n, lo, hi)
    d = np.diff(erb_rate(c))
    np.testing.assert_allclose(d, d.mean(), rtol=1e-6)
    np.testing.assert_allclose(c[[0,-1]], [lo,hi or sr/2], rtol=1e-9, atol=1e-9); assert (np.diff(c)>0).all() and c.shape==(n,)

def test_gammatone_response_is_scipys():
    sr,n_fft = 16000,4096
    c,f = gammatone_frequencies(sr, 24, 200, 5000),bins(sr, n_fft)
    fb = gammatone_filters(sr, n_fft, 24, 200, 5000, power=1.).numpy()
    for ci,row in zip(c, fb):
        b,a = gammatone(ci, 'fir', order=4, numtaps=8000, fs=sr)
        h = abs(freqz(b, a, worN=f, fs=sr)[1])
        # 0.002 of the peak everywhere: the formula leaves out the image at negative frequencies and those folded at sr/2
        np.testing.assert_allclose(row, h/h.max(), rtol=0, atol=2e-3)
        near = abs(f-ci)<erb(ci)
        assert abs(20*np.log10(row[near])-20*np.log10(h[near])).max()<.05  # dB, within one bandwidth to each side

@given(sr=st.sampled_from([8000,16000,44100]), n_fft=st.integers(16, 2048), n=st.integers(1, 64), lo=st.floats(20, 400), power=st.sampled_from([1.,2.,.5]))
@settings(max_examples=30)
def test_gammatone_filters_follow_the_formula(sr, n_fft, n, lo, power):
    fb = gammatone_filters(sr, n_fft, n, lo, None, power, dtype=torch.float64).numpy()
    f,c = bins(sr, n_fft),gammatone_frequencies(sr, n, lo)[:,None]
    want = abs(1/(1+1j*(f-c)/(1.019*erb(c)))**4)**power  # order 4, bandwidth 1.019 ERB: Glasberg and Moore 1990, Patterson et al. 1992
    np.testing.assert_allclose(fb, want, rtol=1e-9)
    assert fb.max()<=1 and (fb>0).all() and (fb.argmax(1)==abs(f-c).argmin(1)).all()

def test_gammatone_peak_is_1_on_a_bin():
    fb = gammatone_filters(16000, 1024, 1, 1000.)
    assert fb[0,64]==1 and fb[0].argmax()==64
    fb2 = gammatone_filters(16000, 1024, 1, 1000., power=1.)
    torch.testing.assert_close(fb2**2, fb, rtol=1e-5, atol=1e-12)  # float32 squared

@given(sr=st.sampled_from([8000,16000,44100]), n_fft=st.integers(8, 1024).map(lambda n: 2*n), n=st.integers(1, 100), lo=st.floats(0, 2000), span=st.floats(500, 2000)|st.none())
@settings(max_examples=30)
def test_linear_filters_are_torchaudios(sr, n_fft, n, lo, span):
    hi = sr/2 if span is None else lo+span
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        got = linear_filters(sr, n_fft, n, lo, hi).numpy()
    want = torchaudio().functional.linear_fbanks(n_fft//2+1, lo, hi, n, sr).T.numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-3*(n+1)*sr/44100)  # torchaudio takes differences of float32 Hz over the width of a filter

def test_linear_filters_sum_to_1_between_the_outer_centres():
    f,c = bins(16000, 1024),linear_frequencies(16000, 20, 500., 6000.)
    inside = (f>=c[0])&(f<=c[-1])
    np.testing.assert_allclose(linear_filters(16000, 1024, 20, 500., 6000., dtype=torch.float64).sum(0).numpy()[inside], 1, rtol=1e-9)
    np.testing.assert_allclose(np.diff(c), (6000-500)/21)

@pytest.mark.parametrize('make', [mel_filters,gammatone_filters,linear_filters])
@pytest.mark.parametrize('kw,what', [(dict(f_min=-1.),'f_min'), (dict(f_min=5000., f_max=5000.),'f_min, f_max'), (dict(f_min=8000.),'f_min'), (dict(n=0),'n_(mels|filters)'), (dict(n=2.5),'n_(mels|filters)'), (dict(n=True),'n_(mels|filters)')])
def test_impossible_bands_are_named(make, kw, what):
    kw = dict(kw); n = kw.pop('n', 10)
    with pytest.raises(ValueError, match=what): make(16000, 512, n, **kw)

@pytest.mark.parametrize('make', [mel_filters,gammatone_filters,linear_filters])
def test_filters_depend_on_each_setting_and_type(make):
    base = dict(sr=16000, n_fft=512, f_min=100., f_max=7000.); n = 12
    k = 'n_mels' if make is mel_filters else 'n_filters'
    vs = [make(**{**base, k:n, **o}) for o in ({}, dict(sr=22050), dict(n_fft=500), {k:13}, dict(f_min=150.), dict(f_max=6500.), dict(dtype=torch.float64))]
    assert vs[-1].dtype==torch.float64 and torch.allclose(vs[-1].float(), vs[0])
    assert all(v.shape!=vs[0].shape or not torch.allclose(v, vs[0], atol=1e-4) for v in vs[1:-1])
    assert torch.equal(make(**base, **{k:n}), vs[0])

@pytest.mark.filterwarnings('default')
def test_empty_filters_warn_and_gammatone_has_none():
    with pytest.warns(UserWarning, match='linear filters hold no frequency'): linear_filters(16000, 31, 301)
    with pytest.warns(UserWarning, match='above 8000 Hz'): linear_filters(16000, 62, 302, 0., 20000.)
    with warnings.catch_warnings(): warnings.simplefilter('error'); assert (gammatone_filters(16000, 33, 303).max(1)[0]>0).all()

# ---- levels

@given(x=st.lists(st.floats(0, 1e6), min_size=1), e=st.floats(.05, 1))
def test_power_law_is_a_power_and_comes_back(x, e):
    x = torch.tensor(x, dtype=torch.float64); y = power_law(x, e)
    normal = x>1e-300  # NumPy keeps what lies below float64's normal numbers
    np.testing.assert_allclose(y[normal].numpy(), x[normal].numpy()**e, rtol=1e-12)
    torch.testing.assert_close(from_power_law(y, e)[normal], x[normal], rtol=1e-9, atol=0)
    assert (y[x==0]==0).all()

def test_power_law_has_a_gradient_at_0_and_names_a_bad_exponent():
    x = torch.tensor([0.,1.,8.]).requires_grad_(); power_law(x).sum().backward()
    assert x.grad.isfinite().all(); torch.testing.assert_close(x.grad[1:], torch.tensor([1/3,1/12]))
    for e in (0,-1,1.5,float('nan')):
        with pytest.raises(ValueError, match='exponent'): power_law(x, e)

@given(seed=st.integers(0, 999), top=st.floats(0, 120)|st.none(), ref=st.floats(1e-3, 1e3), amin=st.sampled_from([1e-10,1e-5,1e-12]))
def test_decibels_are_librosas(seed, top, ref, amin):
    x = np.random.default_rng(seed).lognormal(-5, 6, (1,8,9))
    np.testing.assert_allclose(to_db(torch.from_numpy(x), 10., amin, ref, top).numpy(), librosa.power_to_db(x, ref=ref, amin=amin, top_db=top), atol=1e-9)
    np.testing.assert_allclose(to_db(torch.from_numpy(x), 20., amin, ref, top).numpy(), librosa.amplitude_to_db(x, ref=ref, amin=amin, top_db=top), atol=1e-9)

# ---- cepstra

@pytest.mark.parametrize('n_fft,hop,n_mels,n_mfcc', [(400,200,40,13),(512,160,64,40),(401,100,23,23)])
def test_mfcc_is_torchaudios_and_librosas(n_fft, hop, n_mels, n_mfcc):
    x,mk = noise(1,6000),dict(n_fft=n_fft, hop_length=hop, n_mels=n_mels)
    got = AudioToMFCC(n_mfcc=n_mfcc, melkwargs=mk)(x).plain()
    want = torchaudio().transforms.MFCC(16000, n_mfcc, melkwargs=mk)(x.plain())
    if n_fft%2==0: torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-2)  # dB of float32 on both sides
    got = AudioToMFCC(n_mfcc=n_mfcc, melkwargs={**mk, 'norm':'slaney', 'mel_scale':'slaney'})(x).plain()[0]
    want = librosa.feature.mfcc(y=x.plain()[0].double().numpy(), sr=16000, n_mfcc=n_mfcc, n_fft=n_fft, hop_length=hop, n_mels=n_mels, pad_mode='reflect')
    np.testing.assert_allclose(got.numpy(), want, atol=2e-2, rtol=1e-4)  # float32 against float64, in dB

# ---- as configurations

CONFIGS = {'gammatone':lambda **k: AudioConfig.Gammatone(**k), 'linear':lambda **k: AudioConfig.LinearBands(**k), 'gammatone_log':lambda **k: AudioConfig.Gammatone(to_db=False, compression='log', **k),
           'linear_cube':lambda **k: AudioConfig.LinearBands(to_db=False, compression='power_law', **k), 'mel_cube':lambda **k: AudioConfig.BasicMelSpectrogram(to_db=False, compression='power_law', exponent=.1, n_fft=1024, n_mels=64, **k),
           'stft_log':lambda **k: AudioConfig.BasicSpectrogram(to_db=False, compression='log', power=1., **k), 'gammatone_power':lambda **k: AudioConfig.Gammatone(to_db=False, **k), 'magnitude_bands':lambda **k: AudioConfig.Gammatone(power=1., stype='magnitude', **k)}
cfgs = pytest.mark.parametrize('cfg', CONFIGS.values(), ids=CONFIGS)

@cfgs
def test_batch_is_its_items_and_padding_changes_no_real_frame(cfg):
    t = AudioToSpec.from_cfg(cfg())
    items = [noise(2,n, seed=n) for n in (4000,1100,2501)]
    xb = t(torch.stack(PadAudio()(items)))
    for i,it in enumerate(items):
        a = t(it); k = a.shape[-1]
        assert int(xb.lengths[i])==k and a.shape[0]==2
        torch.testing.assert_close(xb[i].plain()[...,:k], a.plain(), rtol=1e-4, atol=1e-3 if a.units=='dB' else 1e-5)  # a product of matrices in another order, dB of quiet bands
        torch.testing.assert_close(a.plain()[1:], t(it[1:]).plain(), rtol=1e-4, atol=1e-3 if a.units=='dB' else 1e-5)

@cfgs
def test_silence_is_finite_with_a_finite_gradient(cfg):
    t = AudioToSpec.from_cfg(cfg())
    for v in (0.,1e-30,1e-12): assert t(AudioTensor(torch.full((1,2000), v), sr=16000)).isfinite().all()
    x = torch.zeros(1,2000, requires_grad=True); t.pipe(x, 16000).sum().backward()
    assert x.grad.isfinite().all()
    x = (torch.randn(1,2000)*.1).requires_grad_(); t.pipe(x, 16000).sum().backward(); assert x.grad.isfinite().all() and x.grad.abs().sum()>0

@cfgs
@pytest.mark.parametrize('sr', [8000,44100])
def test_rows_know_their_frequencies(cfg, sr):
    a = AudioToSpec.from_cfg(cfg())(noise(1,3000, sr=sr))
    assert len(a.freqs)==a.height and (np.diff(a.freqs)>0).all() and 0<=a.freqs[0] and a.freqs[-1]<=sr/2*(1+1e-12)

@cfgs
def test_a_tone_is_loudest_in_its_row(cfg):
    t,n = AudioToSpec.from_cfg(cfg()),torch.arange(8000)/16000
    f = t(noise(1,3000)).freqs
    for i in (len(f)//3,len(f)//2,2*len(f)//3):
        a = t(AudioTensor(torch.sin(2*np.pi*f[i]*n)[None]*.5, sr=16000))
        assert abs(int(a.plain()[0].mean(-1).argmax())-i)<=1

def test_units_and_fingerprints_differ():
    x = noise(1,3000)
    sgs = {k:AudioToSpec.from_cfg(c())(x) for k,c in CONFIGS.items()}
    assert {k:s.units for k,s in sgs.items()}=={'gammatone':'dB','linear':'dB','gammatone_log':'log','linear_cube':'power law','mel_cube':'power law','stft_log':'log','gammatone_power':'power','magnitude_bands':'dB'}
    prints = [repr(sorted(fingerprint(s).items(), key=str)) for s in sgs.values()]+[repr(sorted(fingerprint(AudioToSpec.from_cfg(CONFIGS['gammatone'](**k))(x)).items(), key=str)) for k in (dict(n_filters=32),dict(f_min=80.),dict(f_max=7000.))]
    assert len(set(prints))==len(prints)
    assert fingerprint(AudioToSpec.from_cfg(CONFIGS['mel_cube']())(x))!=fingerprint(AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(to_db=False, compression='power_law', exponent=.2, n_fft=1024, n_mels=64))(x))

def test_values_are_those_of_the_functions():
    x = noise(1,3000)
    z = spectrogram(x.plain().double(), 1024)
    for cfg,fb in ((AudioConfig.Gammatone,gammatone_filters(16000,1024,64,50.,dtype=torch.float64)),(AudioConfig.LinearBands,linear_filters(16000,1024,64,dtype=torch.float64))):
        for kw,f in ((dict(to_db=False),lambda v: v),(dict(),to_db),(dict(to_db=False,compression='log',C=3.,clip_val=1e-3),lambda v: torch.log(v.clamp(min=1e-3)*3)),(dict(to_db=False,compression='power_law',exponent=.25),lambda v: v**.25)):
            torch.testing.assert_close(AudioToSpec.from_cfg(cfg(**kw))(x).plain().double(), f(fb@z), rtol=1e-4, atol=1e-4)  # float32 sums

@pytest.mark.parametrize('make,what', [(lambda: AudioConfig.BasicMelSpectrogram(filterbank='gammatone'),'filterbank'), (lambda: AudioConfig.Gammatone(filterbank='bark'),'filterbank'), (lambda: AudioConfig.Gammatone(compression='log'),'compression'),
    (lambda: AudioConfig.BasicSpectrogram(to_db=False, compression='mu'),'compression'), (lambda: AudioConfig.Gammatone(onesided=False),'onesided'), (lambda: AudioConfig.LinearBands(to_db=False, compression='log', clip_val=0.),'clip_val'),
    (lambda: AudioConfig.LinearBands(to_db=False, compression='power_law', exponent=2.),'exponent'), (lambda: AudioConfig.VITS(hop_length=2048),'hop_length'), (lambda: AudioConfig.VITS(mirror=-1),'mirror'), (lambda: AudioConfig.VITS(mirror=1.5),'mirror'),
    (lambda: AudioConfig.VITS(eps=-1.),'eps'), (lambda: AudioConfig.VITS(on_clip='print'),'on_clip')])
def test_bad_combinations_are_named(make, what):
    with pytest.raises(ValueError, match=f'^{what}'): AudioToSpec.from_cfg(make())

@pytest.mark.parametrize('kw,what', [(dict(n_filters=0),'n_filters'), (dict(n_filters=3.5),'n_filters'), (dict(f_min=9000.),'f_min'), (dict(f_min=500., f_max=400.),'f_min')])
@pytest.mark.parametrize('cfg', ['Gammatone','LinearBands'])
def test_impossible_bands_are_named_when_a_clip_comes(cfg, kw, what):
    with pytest.raises(ValueError, match=what): AudioToSpec.from_cfg(getattr(AudioConfig, cfg)(**kw))(noise(1,3000))

def test_another_rate_is_refused():
    with pytest.raises(ValueError, match='made for 44100 Hz'): AudioToSpec.from_cfg(AudioConfig.Gammatone(sample_rate=44100))(noise(1,3000))

# ---- what is handed out may be changed

def test_filters_and_matrices_that_are_handed_out_are_copies():
    for f in (lambda: mel_filters(16000, 400, 20), lambda: gammatone_filters(16000, 400, 20), lambda: linear_filters(16000, 400, 20), lambda: dct_matrix(13, 20)):
        want = f().clone(); f().mul_(0); assert torch.equal(f(), want)
    to_mel,x = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, n_mels=20)),AudioTensor(torch.rand(1,4000)-.5, sr=16000)
    want = to_mel(x).plain().clone(); to_mel.pipe.filters(16000).mul_(0); assert torch.equal(to_mel(x).plain(), want)

# ---- settings

@pytest.mark.parametrize('kw', [{}, dict(mirror=40), dict(eps=1e-3), dict(compression='log'), dict(compression='power_law', exponent=.2)], ids=str)
def test_each_setting_of_the_mels_is_in_the_fingerprint_of_mfcc(kw):
    x,base = AudioTensor(torch.rand(1,4000, generator=torch.Generator().manual_seed(0))-.5, sr=16000),dict(n_fft=512, n_mels=40)
    a,b = (AudioToMFCC(n_mfcc=13, melkwargs=k)(x) for k in (base, {**base,**kw}))
    assert (fingerprint(a)==fingerprint(b))==(not kw)
    if kw and a.shape==b.shape: assert not torch.allclose(a.plain(), b.plain(), atol=1e-3)

def test_what_a_configuration_leaves_unused_warns_of_nothing_and_what_a_user_sets_does():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        AudioToSpec.from_cfg(AudioConfig.VITS(mel=False, compression=None)); AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(mel=False))
    with pytest.warns(UserWarning, match='n_mels: ignored'): AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(mel=False, n_mels=33))

@pytest.mark.parametrize('kw,what', [(dict(normalized='frame_length'),'normalized'), (dict(hop_length=0),'hop_length'), (dict(pad_mode='foo'),'mode')])
def test_settings_that_would_mean_something_else_are_refused(kw, what):
    with pytest.raises(ValueError, match=what): AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(**kw))(AudioTensor(torch.rand(1,4000), sr=16000))

def test_windows_of_others_work_and_have_names():
    from scipy.signal.windows import tukey
    x = AudioTensor(torch.rand(1,4000)-.5, sr=16000)
    sgs = [AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(window_fn=w, wkwargs=k))(x) for w,k in ((tukey,None),(tukey,dict(alpha=.1)),(lambda n,beta: torch.ones(n)*beta,dict(beta=2.)))]
    assert len({sg.window_fn for sg in sgs})==3 and sgs[0].window_fn.startswith('tukey#')
    assert AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=np.int64(400)))(x).height==201
