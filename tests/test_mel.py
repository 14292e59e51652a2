"The VITS mel family: against the original's numbers, NumPy and librosa; its cache, its warning, precisions, compiled graphs"
import json,threading,warnings
import librosa,numpy as np,pytest,torch
from fasttransform.transform import Pipeline
from hypothesis import given,strategies as st
from torch._subclasses.fake_tensor import FakeTensor,FakeTensorMode

from specnorm_fastai import mel as M
from specnorm_fastai.core import AudioSpectrogram,AudioTensor
from specnorm_fastai.data import PadAudio
from specnorm_fastai.features import AudioConfig,AudioToSpec,DynamicRangeCompression
from specnorm_fastai.functional import _mel_filters,_window
from specnorm_fastai.mel import *
from specnorm_fastai.specstats import fingerprint
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize
from specnorm_fastai.recorder import StatsRecorder

pytestmark = pytest.mark.filterwarnings('ignore:.*filters hold no frequency')  # many bands on few points, as drawn
BASE = dict(n_fft=1024, num_mels=80, sampling_rate=22050, hop_size=256, win_size=1024, fmin=0., fmax=8000.)
SMALL = dict(n_fft=64, num_mels=8, sampling_rate=8000, hop_size=16, win_size=64, fmin=0., fmax=None)

@pytest.fixture(scope='session')
def vits(shared):
    "What the original made of real clips, see README.md beside it"
    path = shared/'golden'/'vits_mel.npz'
    if not path.exists(): pytest.skip(f"not there: {path}")
    with np.load(path) as z: return {k:z[k] for k in z.files}

@pytest.fixture(autouse=True)
def _heard(): M._asked[:] = None,set()

def sound(*shape, seed=0, dtype=torch.float32): return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)*1.8-.9).to(dtype)
def mel(y, **kw): return mel_spectrogram_torch(y, **{**BASE, **kw})
def small(y, **kw): return mel_spectrogram_torch(y, **{**SMALL, **kw})

def np_spec(y, n_fft, hop, win, center=False):
    "By sliding windows, float64; y (time,)"
    y = np.pad(np.asarray(y, dtype=np.float64), (n_fft-hop)//2, 'reflect')
    if center: y = np.pad(y, n_fft//2, 'reflect')
    w,at = np.zeros(n_fft),(n_fft-win)//2
    w[at:at+win] = .5-.5*np.cos(2*np.pi*np.arange(win)/win) if win>1 else 1.
    z = np.fft.rfft(np.lib.stride_tricks.sliding_window_view(y, n_fft)[::hop]*w).T
    return np.sqrt(z.real**2+z.imag**2+1e-6)

def np_mel(y, n_fft, num_mels, sampling_rate, hop_size, win_size, fmin, fmax, center=False):
    fb = librosa.filters.mel(sr=sampling_rate, n_fft=n_fft, n_mels=num_mels, fmin=fmin, fmax=fmax, dtype=np.float64)
    return np.log(np.maximum(fb@np_spec(y, n_fft, hop_size, win_size, center), 1e-5))

# ---- numbers

def test_the_originals_numbers_are_matched(vits):
    for m in json.loads(str(vits['meta'])):
        y,k = torch.from_numpy(vits[m['clip']]),m['key']
        geo = {n:m[n] for n in ('n_fft','sampling_rate','hop_size','win_size','center')}
        bank = {n:m[n] for n in ('n_fft','num_mels','sampling_rate','fmin','fmax')}
        spec,want = spectrogram_torch(y, **geo),vits[f'{k}_spec']
        assert spec.shape==want.shape and spec.dtype==torch.float32
        assert np.abs(spec.numpy()-want).max()<2e-6*want.max()  # two float32 FFTs
        assert np.abs(spec_to_mel_torch(torch.from_numpy(want), **bank).numpy()-vits[f'{k}_mel_from_spec']).max()<1e-5  # one product of matrices
        assert np.abs(mel_spectrogram_torch(y, **{**geo, **bank}).numpy()-vits[f'{k}_mel']).max()<1e-4  # a float32 FFT on the other side, in quiet bands

@st.composite
def geometries(draw):
    n_fft = draw(st.integers(2, 130)); hop = draw(st.integers(1, n_fft)); win = draw(st.integers(1, n_fft))
    least = max((n_fft-hop)//2+1, n_fft-2*((n_fft-hop)//2))
    return n_fft,hop,win,draw(st.booleans()),draw(st.sampled_from([least, least+1, least+hop, 300])),draw(st.integers(0, 99))

@given(g=geometries())
def test_spectra_are_numpys_for_any_geometry(g):
    n_fft,hop,win,center,n,seed = g
    n = max(n, (n_fft-hop)//2+1)
    y = sound(n, seed=seed, dtype=torch.float64)
    want = np_spec(y, n_fft, hop, win, center)
    got = spectrogram_torch(y, n_fft, 8000, hop, win, center)
    assert got.shape==want.shape
    np.testing.assert_allclose(got.numpy(), want, atol=1e-9*want.max(), rtol=0)  # float64 on both sides
    np.testing.assert_allclose(spectrogram_torch(y.float(), n_fft, 8000, hop, win, center).numpy(), np_spec(y.float(), n_fft, hop, win, center), atol=1e-6*want.max(), rtol=0)  # rounded to float32

@given(g=geometries(), n_mels=st.integers(1, 40), sr=st.sampled_from([8000,11025,44100]), lo=st.floats(0, 1500), span=st.floats(300, 2400)|st.none())
def test_mel_is_librosas_for_any_settings(g, n_mels, sr, lo, span):
    n_fft,hop,win,center,n,seed = g
    y,kw = sound(n, seed=seed),dict(n_fft=n_fft, num_mels=n_mels, sampling_rate=sr, hop_size=hop, win_size=win, fmin=lo, fmax=None if span is None else lo+span, center=center)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        want,got = np_mel(y, **kw),mel_spectrogram_torch(y, **kw).numpy()
    assert got.shape==want.shape and got.dtype==np.float32
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)  # float32 filters and sums under a logarithm

@given(x=st.lists(st.floats(1e-5, 1e6), min_size=1), C=st.floats(1e-3, 1e3))
def test_compression_comes_back(x, C):
    x = torch.tensor(x, dtype=torch.float64).clamp(min=1e-5)
    y = dynamic_range_compression_torch(x, C)
    np.testing.assert_allclose(y.numpy(), np.log(np.maximum(x.numpy(), 1e-5)*C), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dynamic_range_decompression_torch(y, C), x, rtol=1e-6, atol=0)

def test_compression_in_float32_and_by_its_other_name():
    x = torch.logspace(-5, 5, 201).clamp(min=1e-5)
    torch.testing.assert_close(spectral_de_normalize_torch(spectral_normalize_torch(x)), x, rtol=2e-6, atol=0)  # float32's 6e-8 times log(1e5)
    assert torch.equal(spectral_normalize_torch(x), dynamic_range_compression_torch(x)) and spectral_normalize_torch(torch.zeros(3)).eq(np.float32(np.log(1e-5))).all()
    assert MAX_WAV_VALUE==32768.0

@pytest.mark.parametrize('center', [False,True])
def test_ranks_agree(center):
    y = sound(2,3,3000)
    want = torch.stack([torch.stack([mel(c, center=center) for c in b]) for b in y])
    assert torch.equal(mel(y, center=center), want) and torch.equal(mel(y[0], center=center), want[0]) and mel(y[0,0]).ndim==2
    assert torch.equal(mel(y.transpose(0,1).contiguous().transpose(0,1), center=center), want)  # strides do not matter

# ---- the cache

OTHER = dict(n_fft=1000, num_mels=40, sampling_rate=16000, fmin=300., fmax=4000.)
def fits(dtype=torch.float32, **kw):
    s = {**{k:v for k,v in BASE.items() if k not in ('hop_size','win_size')}, **kw}
    spec = sound(s['n_fft']//2+1, 5, dtype=dtype)+1
    fb = librosa.filters.mel(sr=s['sampling_rate'], n_fft=s['n_fft'], n_mels=s['num_mels'], fmin=s['fmin'], fmax=s['fmax'], dtype=np.float64)
    got = spec_to_mel_torch(spec, **s)
    assert got.dtype==dtype
    np.testing.assert_allclose(got.numpy(), np.log(np.maximum(fb@spec.double().numpy(), 1e-5)), atol=1e-5 if dtype==torch.float32 else 1e-10, rtol=0)  # the type's own rounding

@pytest.mark.parametrize('name', [*OTHER,'dtype'])
def test_each_setting_has_filters_of_its_own(name):
    mel_basis.clear(); fits()
    for _ in range(2): fits(**({'dtype':torch.float64} if name=='dtype' else {name:OTHER[name]})); fits()
    assert len(mel_basis)==2

@pytest.mark.parametrize('name', ['win_size','dtype','n_fft'])
def test_each_setting_has_a_window_of_its_own(name):
    y = sound(4000)
    for v in (None,1,None):
        kw,z = dict(n_fft=512, sampling_rate=8000, hop_size=100, win_size=400),y
        if v: kw,z = ({**kw, 'win_size':300},y) if name=='win_size' else ({**kw, 'n_fft':400},y) if name=='n_fft' else (kw,y.double())
        want = np_spec(z.numpy(), kw['n_fft'], 100, kw['win_size'])
        assert np.abs(spectrogram_torch(z, **kw).numpy()-want).max()<1e-6*want.max()

def test_views_of_the_cache_are_bounded_listed_and_cleared():
    mel_basis.clear(); hann_window.clear()
    assert not len(mel_basis) and not len(hann_window) and list(mel_basis)==[]
    for n in range(100): spec_to_mel_torch(torch.ones(33,1), 64, 2+n%9, 8000+n, 0, None)
    for n in range(100): spectrogram_torch(torch.zeros(300), 128, 8000, 64, 28+n)
    assert 0<len(mel_basis)<=64 and 0<len(hann_window)<=64 and len(list(mel_basis))==len(mel_basis) and all(k in mel_basis for k in mel_basis)
    assert all(isinstance(v, torch.Tensor) and v.ndim==2 for v in mel_basis.values()) and all(v.ndim==1 for v in hann_window.values())
    mel_basis.clear(); assert not len(mel_basis) and len(hann_window)
    hann_window.clear(); assert not len(hann_window) and 'kept' in repr(hann_window)

def test_clearing_hann_windows_leaves_other_windows():
    AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(window_fn=torch.hamming_window))(AudioTensor(sound(1,2000), sr=8000))
    hann_window.clear()
    assert any(k[0] is torch.hamming_window for k in _window.kept) and not len(hann_window)

class Raises:
    def __enter__(self): raise AssertionError('a lock was taken')
    def __exit__(self, *a): pass

def test_a_hit_takes_no_lock(monkeypatch):
    y = sound(3000); want = mel(y)
    for c in (_window,_mel_filters): monkeypatch.setattr(c, 'lock', Raises())
    assert torch.equal(mel(y), want)
    with pytest.raises(AssertionError, match='lock'): mel(y, num_mels=31, fmin=17.)

def test_many_threads_many_keys_and_clear():
    keys = [(n_fft,m) for n_fft in range(64,104,2) for m in range(4,10)]  # 120: more than are kept
    y,want,bad,stop = sound(400),{},[],threading.Event()
    kw = lambda k: {**SMALL, 'n_fft':k[0], 'num_mels':k[1], 'win_size':k[0]-k[1]}
    for k in keys: want[k] = mel_spectrogram_torch(y, **kw(k))
    def work(seed):
        try:
            for i in np.random.default_rng(seed).integers(0, len(keys), 60):
                if not torch.equal(mel_spectrogram_torch(y, **kw(keys[i])), want[keys[i]]): bad.append(keys[i])
        except Exception as e: bad.append(repr(e))
    def clear():
        while not stop.wait(.002): mel_basis.clear(); hann_window.clear(); len(mel_basis); list(hann_window.items())
    def guarded():
        try: clear()
        except Exception as e: bad.append(repr(e))
    ts = [threading.Thread(target=work, args=(i,)) for i in range(8)]; c = threading.Thread(target=guarded); c.start()
    for t in ts: t.start()
    for t in ts: t.join()
    stop.set(); c.join()
    assert not bad and len(_mel_filters.kept)<=64 and len(_window.kept)<=64

def test_inference_mode_does_not_poison_training():
    mel_basis.clear(); hann_window.clear()
    with torch.inference_mode(): small(sound(400))
    y = sound(400).requires_grad_(); small(y).sum().backward()
    assert y.grad.isfinite().all() and not any(v.is_inference() for v in (*mel_basis.values(),*hann_window.values()))

def test_fake_tensors_do_not_stay():
    mel_basis.clear(); hann_window.clear()
    with FakeTensorMode(allow_non_fake_inputs=True): assert isinstance(small(torch.empty(2,400)), FakeTensor)
    class Net(torch.nn.Module):
        def forward(self, y): return small(y, num_mels=9)
    torch.export.export(Net(), (sound(2,400),), strict=False)
    kept = [v for c in (_window,_mel_filters) for v in c.kept.values()]
    assert kept and not any(isinstance(v, FakeTensor) for v in kept)
    assert small(sound(400)).isfinite().all()

@pytest.mark.parametrize('default', [torch.float16,torch.bfloat16,torch.float64])
def test_the_default_dtype_does_not_stay(default):
    y = sound(400); hann_window.clear(); mel_basis.clear(); want = small(y)
    hann_window.clear(); mel_basis.clear()
    try: torch.set_default_dtype(default); got = small(y)
    finally: torch.set_default_dtype(torch.float32)
    assert got.dtype==torch.float32
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)  # a window rounded to half would be off by 1e-3
    torch.testing.assert_close(small(y), want, rtol=0, atol=1e-5)

def test_the_default_device_does_not_matter():
    hann_window.clear(); mel_basis.clear(); y = sound(400)
    with torch.device('meta'): got = small(y)
    assert got.device.type=='cpu' and torch.equal(got, small(y))

# ---- out of range

def warned(f, filters='default'):
    with warnings.catch_warnings(record=True) as w: warnings.simplefilter(filters); f()
    return [str(o.message) for o in w if 'y: expected' in str(o.message)]
LOUD = torch.tensor([-1.25]+[0.]*400+[2.5])

def test_warning_tells_the_range_and_the_place():
    with warnings.catch_warnings(record=True) as w: warnings.simplefilter('default'); mel_spectrogram_torch(LOUD, **SMALL)
    assert len(w)==1 and w[0].category is UserWarning and '-1.25 to 2.5' in str(w[0].message) and w[0].filename==__file__

def test_warning_once_per_call_site():
    def loop():
        for _ in range(5): mel_spectrogram_torch(LOUD, **SMALL)
    def two():
        mel_spectrogram_torch(LOUD, **SMALL)
        mel_spectrogram_torch(LOUD, **SMALL)
    for flt in ('default','always'): assert (len(warned(loop, flt)),len(warned(two, flt)))==(1,2)

def test_warning_again_in_a_new_context():
    f = lambda: small(LOUD)
    assert [len(warned(f)) for _ in range(3)]==[1,1,1]

def test_nan_is_told_and_the_edge_is_not():
    assert 'nan' in warned(lambda: small(torch.cat([LOUD[1:-1], torch.tensor([float('nan')])])))[0]
    assert warned(lambda: small(torch.tensor([1.,-1.]*200)))==[]
    with pytest.raises(ValueError, match='nan'): small(torch.full((400,), float('nan')), on_clip='raise')

def test_on_clip():
    with pytest.raises(ValueError, match=r'y: expected samples in \[-1, 1\], got -1.25 to 2.5'): small(LOUD, on_clip='raise')
    with pytest.raises(ValueError, match='on_clip'): small(LOUD, on_clip='print')
    assert warned(lambda: small(LOUD, on_clip='ignore'))==[] and small(LOUD, on_clip='ignore').isfinite().all()

def test_spectrogram_torch_warns_too_and_nothing_is_printed(capsys):
    assert len(warned(lambda: spectrogram_torch(LOUD, 64, 8000, 16, 64)))==1
    assert capsys.readouterr().out==''

def test_no_warning_behind_audio_normalize_but_one_without():
    x,t = AudioTensor(sound(1,4000), sr=22050)*3,AudioToSpec.from_cfg(AudioConfig.VITS())
    assert warned(lambda: Pipeline([AudioNormalize(),t])(x))==[] and len(warned(lambda: Pipeline([t])(x)))==1
    assert warned(lambda: AudioToSpec.from_cfg(AudioConfig.VITS(on_clip='ignore'))(x))==[]
    with pytest.raises(ValueError, match='y: expected samples'): AudioToSpec.from_cfg(AudioConfig.VITS(on_clip='raise'))(x)

# ---- precisions and gradients

@pytest.mark.parametrize('dtype,tol', [(torch.float16,1e-5),(torch.bfloat16,1e-5),(torch.float64,1e-4)])  # of the same rounded samples; float64 against float32 filters
def test_other_precisions_are_near(dtype, tol):
    y = sound(2,4000).to(dtype); got = mel(y)
    assert got.dtype==(torch.float64 if dtype==torch.float64 else torch.float32)
    torch.testing.assert_close(got.float(), mel(y.float()), rtol=0, atol=tol)

def test_float64_is_numpys():
    y = sound(3000, dtype=torch.float64)
    np.testing.assert_allclose(mel(y).numpy(), np_mel(y, **BASE), rtol=0, atol=1e-9)  # float64 on both sides

@pytest.mark.parametrize('dtype', [torch.float32,torch.bfloat16,torch.float16])
def test_autocast_changes_nothing(dtype):
    y = sound(2,4000).to(dtype); want = mel(y)
    with torch.autocast('cpu', torch.bfloat16): got = mel(y)
    assert got.dtype==torch.float32 and torch.equal(got, want)

def test_gradients_flow_and_are_finite_on_silence():
    for y in (torch.zeros(2,3000), sound(2,3000), torch.full((2,3000), 1e-30)):
        y.requires_grad_(); mel(y).sum().backward()
        assert y.grad.isfinite().all()
    y = sound(1,3000).requires_grad_(); mel(y).sum().backward(); assert y.grad.abs().sum()>0

def test_gradients_are_numerically_right():
    y = sound(2,48, dtype=torch.float64).requires_grad_()
    for c in (False,True): assert torch.autograd.gradcheck(lambda y: mel_spectrogram_torch(y, 16, 3, 8000, 5, 12, 0., None, c), (y,))

# ---- graphs

def test_compiled_is_eager_warm_and_cold_and_for_changing_settings():
    torch._dynamo.reset()
    f,y = torch.compile(small, fullgraph=True, backend='aot_eager'),sound(2,400)
    for kw in (dict(), dict(n_fft=80), dict(num_mels=9), dict(fmax=3000.), dict(num_mels=11, fmax=2000.), dict()):
        torch.testing.assert_close(f(y, **kw), small(y, **kw), rtol=0, atol=1e-5)  # the same sums in another order
    mel_basis.clear(); hann_window.clear()
    torch.testing.assert_close(f(sound(2,400, seed=1), num_mels=10), small(sound(2,400, seed=1), num_mels=10), rtol=0, atol=1e-5)

def test_several_resolutions_fit_one_graph_that_trains():
    torch._dynamo.reset(); mel_basis.clear(); hann_window.clear()
    def loss(a, b): return sum((small(a, n_fft=n, win_size=n, hop_size=n//4, num_mels=m)-small(b, n_fft=n, win_size=n, hop_size=n//4, num_mels=m)).abs().mean() for n,m in ((32,4),(64,8),(128,12)))
    a,b = sound(2,600).requires_grad_(),sound(2,600, seed=1)
    f = torch.compile(loss, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(f(a, b), loss(a, b), rtol=1e-5, atol=0)
    g,w = torch.autograd.grad(f(a, b), a)[0],torch.autograd.grad(loss(a, b), a)[0]
    torch.testing.assert_close(g, w, rtol=0, atol=1e-5*w.abs().max().item())  # the same sums in another order

def test_a_compiled_graph_does_not_warn_of_the_range():
    torch._dynamo.reset()
    assert warned(lambda: torch.compile(small, fullgraph=True, backend='eager')(LOUD))==[]

def test_exported_with_dynamic_batch_and_time():
    class Net(torch.nn.Module):
        def forward(self, y): return small(y)
    D = torch.export.Dim
    p = torch.export.export(Net(), (sound(2,400),), strict=False, dynamic_shapes={'y':{0:D('batch', min=1),1:D('time', min=64)}}).module()
    for b,n in ((1,64),(2,65),(5,1000)): torch.testing.assert_close(p(sound(b,n)), small(sound(b,n)), rtol=0, atol=1e-5)

# ---- errors

@pytest.mark.parametrize('f,what', [
    (lambda: small(torch.zeros(400, dtype=torch.int16)), 'y: .*int16.*MAX_WAV_VALUE'), (lambda: small([0.]*400), 'y: .*list'), (lambda: small(np.zeros(400)), 'y: .*ndarray'), (lambda: small(torch.zeros(400, dtype=torch.complex64)), 'y: '),
    (lambda: small(torch.tensor(1.)), r'y: .*\(\)'), (lambda: small(torch.zeros(1,1,1,400)), r'y: .*\(1, 1, 1, 400\)'), (lambda: small(torch.zeros(15)), 'y: expected at least'), (lambda: small(torch.zeros(2,0)), 'y: expected at least'),
    (lambda: small(sound(400), hop_size=65), 'hop_size: .*65'), (lambda: small(sound(400), hop_size=0), 'hop_size: .*0'), (lambda: small(sound(400), win_size=65), 'win_size: .*65'), (lambda: small(sound(400), win_size=0), 'win_size'),
    (lambda: small(sound(400), fmin=3000., fmax=3000.), 'f_?min'), (lambda: small(sound(400), fmin=-1.), 'f_?min'), (lambda: small(sound(400), fmin=4000.), 'f_?min'), (lambda: small(sound(400), num_mels=0), 'n(um)?_mels'),
    (lambda: spec_to_mel_torch(torch.ones(32,5), 64, 8, 8000, 0., None), r'spec: .*33.*\(32, 5\)'), (lambda: spec_to_mel_torch(torch.ones(33), 64, 8, 8000, 0., None), 'spec'), (lambda: spec_to_mel_torch(torch.ones(33,5).long(), 64, 8, 8000, 0., None), 'spec: .*int64'),
    (lambda: spec_to_mel_torch([[1.]], 64, 8, 8000, 0., None), 'spec: .*list'), (lambda: dynamic_range_compression_torch([1.]), 'x: .*list'), (lambda: spectral_de_normalize_torch(torch.ones(2).int()), 'x: .*int32')])
def test_what_is_wrong_is_named(f, what):
    with pytest.raises((TypeError,ValueError), match=what): f()

def test_the_shortest_clip_that_is_let_in_works():
    for n_fft,hop in ((64,16),(64,64),(65,16),(64,63),(7,1),(2,1),(1,1)):
        m = (n_fft-hop)//2; least = max(m+1, n_fft-2*m)
        assert spectrogram_torch(sound(least), n_fft, 8000, hop, n_fft).shape[-1]>=1
        with pytest.raises(ValueError, match='y: expected at least'): spectrogram_torch(sound(least)[1:], n_fft, 8000, hop, n_fft)

# ---- as a transform

def of_vits(**kw): return AudioToSpec.from_cfg(AudioConfig.VITS(**kw))
def want_of(x, sr, n_fft=1024, hop=256, n_mels=80): return mel_spectrogram_torch(x, n_fft, n_mels, sr, hop, n_fft, 0., None)

@pytest.mark.parametrize('shape', [(1,5000),(2,5000),(3,1,5000),(3,2,5000)])
def test_the_configuration_is_the_function(shape):
    x = AudioTensor(sound(*shape), sr=22050, fn='a.wav' if len(shape)==2 else None); sg = of_vits()(x)
    torch.testing.assert_close(sg.plain(), want_of(x.plain(), 22050), rtol=0, atol=2e-6)  # its bands are added up in float64, those of the function in float32
    assert isinstance(sg, AudioSpectrogram) and sg.sr==22050 and sg.fn==x.fn
    s = sg.settings
    assert (s['n_fft'],s['hop_length'],s['n_mels'],s['mel_scale'],s['norm'],s['compression'],s['units'],s['mirror'],s['eps'],s['power'],s['center'])==(1024,256,80,'slaney','slaney','log','log',384,1e-6,1.,False)
    assert len(sg.freqs)==80 and list(sg.freqs)==sorted(sg.freqs) and sg.units=='log'

def test_other_settings_reach_the_function():
    x = AudioTensor(sound(1,5000), sr=16000)
    torch.testing.assert_close(of_vits(n_fft=513, hop_length=100, n_mels=33, win_length=400, f_min=20., f_max=7000.)(x).plain(), mel_spectrogram_torch(x.plain(), 513, 33, 16000, 100, 400, 20., 7000.), rtol=0, atol=1e-6)

def test_padded_items_are_as_alone():
    items = [AudioTensor(sound(1,n, seed=n), sr=22050) for n in (5000,1024,3001,700)]
    xb = of_vits()(torch.stack(PadAudio()(items)))
    for i,it in enumerate(items):
        alone = want_of(it.plain(), 22050); k = alone.shape[-1]
        assert int(xb.lengths[i])==k
        torch.testing.assert_close(xb[i].plain()[...,:k], alone, rtol=0, atol=1e-5)  # the same sums in another order
        rest = of_vits()(AudioTensor(torch.zeros(1,5000), sr=22050)).plain()[...,:1]
        torch.testing.assert_close(xb[i].plain()[...,k:], rest.expand(-1,-1,xb.shape[-1]-k), rtol=0, atol=1e-5)

def test_statistics_tell_it_from_a_db_mel():
    x = AudioTensor(sound(4,1,8000), sr=22050)
    log,db = of_vits()(x),AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=1024, hop_length=256, n_mels=80))(x)
    def norm(sg): r = StatsRecorder((0,2,3)); r.update(sg); return SpecNormalize.from_recorder(r)
    n = norm(log)
    y = n(log)
    torch.testing.assert_close(n.decode(y).plain(), log.plain(), rtol=0, atol=1e-4)  # float32, twice
    assert abs(y.plain().mean())<1e-3 and abs(y.plain().std()-1)<1e-2 and n.decode(y).units=='log'
    with pytest.raises(ValueError, match='units'): n(db)
    fs = [json.dumps(fingerprint(of_vits(**kw)(x)), sort_keys=True) for kw in (dict(), dict(C=2.), dict(clip_val=1e-4), dict(eps=1e-9), dict(mirror=0), dict(center=True), dict(norm=None))]
    assert len(set(fs))==len(fs)
    assert fingerprint(of_vits(on_clip='ignore')(x))==fingerprint(log)  # it changes no value

@pytest.mark.parametrize('shape', [(1,5000),(3,1,5000),(2,2,5000)])
def test_dynamic_range_compression_encodes_and_decodes(shape):
    sg = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(to_db=False, power=1., n_fft=1024, hop_length=256, n_mels=80))(AudioTensor(sound(*shape), sr=22050))
    t = DynamicRangeCompression(C=2., clip_val=1e-4); y = t(sg)
    assert torch.equal(y.plain(), dynamic_range_compression_torch(sg.plain(), 2., 1e-4)) and y.units=='log' and sg.units=='magnitude'
    back = t.decode(y)
    torch.testing.assert_close(back.plain(), sg.plain().clamp(min=1e-4), rtol=1e-5, atol=0)  # float32 exp and log
    assert back.units=='magnitude' and fingerprint(back)==fingerprint(sg)!=fingerprint(y) and back.fn==sg.fn and back.sr==sg.sr
    with pytest.raises(ValueError, match='got log'): t(y)
    for kw in (dict(C=0.), dict(clip_val=0.)):
        with pytest.raises(ValueError, match='C, clip_val'): DynamicRangeCompression(**kw)

def test_dynamic_range_compression_makes_the_configuration():
    x = AudioTensor(sound(1,5000), sr=22050)
    a = DynamicRangeCompression()(of_vits(compression=None)(x)); b = of_vits()(x)
    assert torch.equal(a.plain(), b.plain()) and fingerprint(a)==fingerprint(b)

def test_spectrograms_and_waveforms_come_out_plain_and_at_their_own_rate():
    x = AudioTensor(torch.rand(1,4000)-.5, sr=16000)
    sg = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(n_fft=512, to_db=False, power=1.))(x)
    for y in (mel_spectrogram_torch(x, 512, 20, 16000, 128, 512, 0., None), spec_to_mel_torch(sg, 512, 20, 16000, 0., None), spectral_normalize_torch(sg), dynamic_range_decompression_torch(sg)): assert type(y) is torch.Tensor
    for f in (lambda: mel_spectrogram_torch(x, 512, 20, 8000, 128, 512, 0., None), lambda: spec_to_mel_torch(sg, 512, 20, 8000, 0., None)):
        with pytest.raises(ValueError, match='sampling_rate: the Audio.* has 16000 Hz, got 8000'): f()

def test_filters_changed_in_place_are_another_chance_to_be_heard():
    y,a = torch.ones(1,4000)*3,(512, 20, 16000, 128, 512, 0., None)
    with warnings.catch_warnings():
        for how in ('ignore','error'):
            warnings.simplefilter(how)
            try: mel_spectrogram_torch(y, *a); said = None
            except UserWarning as e: said = str(e)
    assert said and 'got 3 to 3' in said
