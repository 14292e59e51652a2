"The compiled kernels give what PyTorch's operations give, on any number of threads, and stand aside where they must"
import subprocess,sys,threading
import numpy as np, pytest, torch
from hypothesis import given,strategies as st
from specnorm_fastai import data as data_room,fast,functional as F,recorder,ways as W
from specnorm_fastai.core import AudioSpectrogram,AudioTensor
from specnorm_fastai.fast import compiled,in_parts,no_kernels
from specnorm_fastai.features import AudioConfig,AudioToSpec
from specnorm_fastai.recorder import StatsRecorder

pytestmark = pytest.mark.skipif(fast._kernels() is None, reason='numba is not installed')

def both(f):
    "What `f` gives with kernels and without; it must have used one, and then none"
    used,real,module = [],fast._kernels,fast._kernels()
    class Spy:
        def __getattr__(self, k): used.append(k); return getattr(module, k)
    fast._kernels = lambda: Spy()
    try:
        a = f(); assert used, 'no kernel was used'
        n = len(used)
        with no_kernels(): b = f()
        assert len(used)==n
    finally: fast._kernels = real
    return a,b

def near(a, b, rtol=0., atol=0.):
    assert a.shape==b.shape and a.dtype==b.dtype
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)

def data(seed, *shape, dtype=torch.float32, scale=20., off=-40.):
    return (torch.from_numpy(np.random.default_rng(seed).normal(size=shape))*scale+off).to(dtype)

dtypes = st.sampled_from([torch.float32,torch.float64])

@given(seed=st.integers(0,999), b=st.integers(1,3), c=st.integers(1,2), f=st.integers(1,40), t=st.integers(1,70), dtype=dtypes,
       how=st.sampled_from(['plain','turned','sliced']), back=st.booleans(), stat=st.sampled_from([(1,1,1,1),(1,1,'f',1),(1,'c','f',1),()]))
def test_normalize_is_bit_for_bit_what_torch_gives(seed, b, c, f, t, dtype, how, back, stat):
    x = data(seed, b, c, f, t, dtype=dtype)
    if how=='turned': x = x.transpose(-1,-2).contiguous().transpose(-1,-2)
    if how=='sliced': x = data(seed, b, c, f, 2*t, dtype=dtype)[...,::2]
    shape = [dict(c=c, f=f).get(v, v) for v in stat]
    m,s = torch.randn(shape).double(),torch.rand(shape).double()+.1
    fn,fn_ = (F.denormalize,F.denormalize_) if back else (F.normalize,F.normalize_)
    a,want = both(lambda: fn(x, m, s))
    near(a, want)
    y = x.clone()
    assert fn_(y, m, s) is y
    near(y, want)
    z = x.bfloat16()
    assert fn_(z, m, s).dtype==torch.bfloat16
    near(z, fn(x.bfloat16(), m, s))

@given(seed=st.integers(0,999), rows=st.integers(1,5), t=st.integers(1,200), dtype=dtypes, ln=st.booleans(), kind=st.sampled_from(['any','flat','step','nan','inf','tiny','huge']))
def test_standardize_and_silence(seed, rows, t, dtype, ln, kind):
    x = data(seed, rows, 2, t, dtype=dtype, scale=.1, off=.3)
    if kind=='flat': x[0] = .25
    if kind=='step': x[0,:,t//2:] = 0
    if kind=='nan': x[0,0,t//3] = float('nan')
    if kind=='inf': x[0,0,t//3] = float('inf')
    if kind=='tiny': x *= 1e-12
    if kind=='huge': x = x.sign()*torch.finfo(dtype).max*.9  # so far apart that their difference is infinite
    lengths = torch.from_numpy(np.random.default_rng(seed).integers(0, t+1, (rows,1))) if ln else None
    a,b = both(lambda: F.standardize(x.clamp(-1e3,1e3), lengths))
    if kind in ('nan','inf'): a,b = a[:,1],b[:,1]  # of such a row only its padding is promised
    near(a, b, 1e-12 if dtype==torch.float64 else 1e-6, 1e-12 if dtype==torch.float64 else 1e-7)
    for how in (dict(n_fft=16), dict(n_fft=16, win_length=9, hop_length=5), dict(n_fft=8, hop_length=4, center=False), dict(n_fft=16, pad=3)):
        if F.n_frames(t, how['n_fft'], how.get('hop_length', 8), how.get('center', True), how.get('pad', 0))<1: continue
        a,b = both(lambda: F.silent_frames(x, **how, lengths=lengths))
        assert torch.equal(a, b)

@given(seed=st.integers(0,999), n=st.integers(40,300), dtype=dtypes, n_fft=st.sampled_from([15,16,32]), win=st.sampled_from([None,11,15]), hop=st.integers(1,20), pad=st.integers(0,5),
       mirror=st.integers(0,7), center=st.booleans(), pad_mode=st.sampled_from(['reflect','constant']), power=st.sampled_from([1.,2.]), normalized=st.booleans(),
       eps=st.sampled_from([0.,1e-6]), ln=st.booleans())
def test_spectrogram_has_the_same_edges(seed, n, dtype, n_fft, win, hop, pad, mirror, center, pad_mode, power, normalized, eps, ln):
    x = data(seed, 2, 2, n, dtype=dtype, scale=.3, off=0.)
    lengths = torch.from_numpy(np.random.default_rng(seed).integers(n_fft+1, n+1, (2,1))) if ln else None
    kw = dict(n_fft=n_fft, win_length=win, hop_length=hop, pad=pad, mirror=mirror, center=center, pad_mode=pad_mode, power=power, normalized=normalized, eps=eps, lengths=lengths)
    a,b = both(lambda: F.spectrogram(x, **kw))
    tol = 1e-11 if dtype==torch.float64 else 3e-5
    near(a, b, tol, tol)

@pytest.mark.parametrize('bad', [dict(n_fft=400, x=100), dict(n_fft=64, mirror=100, x=90), dict(n_fft=64, x=100, lengths=[90,20])])
def test_too_short_clips_give_the_same_error(bad):
    x,lengths = torch.randn(2, bad.pop('x')),bad.pop('lengths', None)
    msgs = []
    for k in (True,False):
        with pytest.raises(ValueError) as e:
            if k: F.spectrogram(x, **bad, lengths=None if lengths is None else torch.tensor(lengths))
            else:
                with no_kernels(): F.spectrogram(x, **bad, lengths=None if lengths is None else torch.tensor(lengths))
        msgs.append(str(e.value))
    assert msgs[0]==msgs[1]

configs = dict(linear=AudioConfig.BasicSpectrogram(), narrow=AudioConfig.BasicMelSpectrogram(n_fft=1024, hop_length=320, n_mels=64), mel=AudioConfig.BasicMelSpectrogram(n_fft=256, hop_length=100, n_mels=20), slaney=AudioConfig.BasicMelSpectrogram(n_fft=512, n_mels=30, norm='slaney', mel_scale='slaney', top_db=60.),
               magnitude=AudioConfig.BasicMelSpectrogram(n_fft=256, n_mels=20, power=1., stype='magnitude'), vits=AudioConfig.VITS(), gammatone=AudioConfig.Gammatone(n_fft=256, n_filters=16), bands=AudioConfig.LinearBands(n_fft=256, n_filters=16))
@pytest.mark.parametrize('name', configs)
@pytest.mark.parametrize('at_once', [1,3,1000])
def test_features_are_the_same_with_kernels_and_in_parts(name, at_once, monkeypatch):
    tfm = AudioToSpec.from_cfg(configs[name])
    torch.manual_seed(0)
    x = torch.randn(7, 2, 5000)*torch.logspace(-4, -.3, 7)[:,None,None]
    a = AudioTensor(x.clamp(-1,1), sr=16000, lengths=[5000,4000,3000,5000,2000,5000,1200])
    monkeypatch.setattr(type(tfm.pipe), '_at_once', lambda self, x, s: at_once)
    got,want = both(lambda: tfm(a))
    bands = fast._kernels().band_rows if name=='narrow' else None
    if bands: assert bands.signatures
    near(got.plain(), want.plain(), 1e-4, 2e-3)  # float32 transforms of quiet bands, in dB
    assert torch.equal(got.silent, want.silent) and torch.equal(got.lengths, want.lengths)

@given(seed=st.integers(0,999), b=st.integers(1,3), f=st.integers(1,75), t=st.integers(1,90), window=st.integers(1,100), center=st.booleans(), norm_vars=st.booleans(), dtype=dtypes,
       mask=st.sampled_from([None,'item','broadcast']), ln=st.booleans(), loud=st.booleans())
def test_sliding_windows_of_any_length(seed, b, f, t, window, center, norm_vars, dtype, mask, ln, loud):
    r = np.random.default_rng(seed)
    x = data(seed, b, 1, f, t, dtype=dtype)
    if loud: x[...,t//2] = 1e9
    m = None if mask is None else torch.from_numpy(r.random((b if mask=='item' else 1, t))<.7)
    lengths = torch.from_numpy(r.integers(0, t+1, b)) if ln else None
    a,want = both(lambda: W.normalize_sliding(x, window, min(window, 7), center, norm_vars, m, lengths))
    scale = 1. if norm_vars else x.abs().max().item()
    near(a, want, 1e-9 if dtype==torch.float64 else 3e-6, (1e-9 if dtype==torch.float64 else 2e-6)*scale)

def test_a_window_slides_over_a_waveform_too():
    x = data(0, 3, 1, 5000, scale=.1, off=0.)
    a,b = both(lambda: W.normalize_sliding(x, 400, 400, True, True, lengths=torch.tensor([5000,3000,0])))
    near(a, b, 1e-5, 1e-5)

@given(seed=st.integers(0,999), per=st.sampled_from(['item','frequency',('band',3)]), dtype=dtypes, mask=st.booleans(), far=st.booleans())
def test_item_statistics(seed, per, dtype, mask, far):
    x = data(seed, 3, 2, 9, 50, dtype=dtype)
    if far: x[0,0,:,0] = 1e6
    per,bands = per if isinstance(per, tuple) else (per,None)
    m = torch.from_numpy(np.random.default_rng(seed).random((3,50))<.5) if mask else None
    if mask: m[1] = False
    (a,s),(b,q) = both(lambda: W.item_stats(x, per, bands, m))
    near(a, b, 1e-11, 1e-9); near(s, q, 1e-9, 1e-9)
    a,b = both(lambda: W.normalize_item(x, per, bands, mask=m))
    near(a, b, 1e-5, 1e-5)

@given(seed=st.integers(0,999), b=st.integers(1,4), t=st.integers(1,60), dtype=dtypes, mask=st.booleans(), groups=st.sampled_from([0,3]), off=st.sampled_from([0.,-40.,1e5]), units=st.sampled_from(['dB','power','log']))
def test_recorders_hold_the_same(seed, b, t, dtype, mask, groups, off, units):
    x = data(seed, b, 2, 6, t, dtype=dtype, off=off)
    if units=='power': x = x.abs()
    x = AudioSpectrogram.create(x, settings=dict(sr=16000, n_fft=10, hop_length=5, units=units))
    m = torch.from_numpy(np.random.default_rng(seed).random((b,t))<.6) if mask else None
    ln = torch.from_numpy(np.random.default_rng(seed+1).integers(0, t+1, b)) if mask else None
    def run():
        r = StatsRecorder((0,3), quantiles=True, groups=groups)
        for _ in range(2): r.update(x, mask=m, lengths=ln)
        return r
    a,w = both(run)
    assert a.frames==w.frames and a.nobservations==w.nobservations
    for p,q in zip(a._extra, w._extra): assert torch.equal(p, q)
    n = w._table[0]
    assert torch.equal(a._table[0], n)
    scale = abs(off)+60
    torch.testing.assert_close(a._table[1], w._table[1], rtol=1e-13, atol=1e-13*scale)
    torch.testing.assert_close(a._table[2], w._table[2], rtol=1e-11, atol=1e-12*scale**2)
    if groups: torch.testing.assert_close(a._peak, w._peak, rtol=1e-12, atol=1e-10)

def test_values_of_any_size_keep_their_moments():
    rng = np.random.default_rng(0)
    for off,scale in ((0,1),(1e6,1e-2),(-1e30,1e28),(1e-30,1e-32)):
        x = torch.from_numpy((rng.normal(size=(4,1,8,300))*scale+off).astype(np.float32))
        x[0,0,0,0] = off+1e3*scale  # far from all others
        r = StatsRecorder('frequency'); r.update(x)
        want = x.double().numpy().transpose(2,0,1,3).reshape(8,-1)
        np.testing.assert_allclose(r.mean.flatten(), want.mean(1), rtol=1e-13, atol=1e-14*scale)
        np.testing.assert_allclose(r.std.flatten(), want.std(1), rtol=1e-12 if abs(off)<=1 or scale>1 else 1e-6)

def test_bad_values_are_found_and_left_out():
    for v in (float('nan'),float('inf'),-float('inf')):
        x = data(0, 3, 1, 5, 20); x[1,0,2,7] = v
        r = StatsRecorder()
        with pytest.raises(ValueError, match='NaN or Inf in item 1|NaN or Inf in an item'): r.update(x)
        assert r.nobservations==0
        r = StatsRecorder(on_bad='skip', quantiles=True); r.update(x)
        assert r.frames['bad']==1 and torch.isfinite(r.mean).all()
        m = torch.ones(3,20, dtype=torch.bool); m[1,7] = False
        q = StatsRecorder(quantiles=True); q.update(x, mask=m)  # what does not count is not looked at
        assert q.frames['bad']==0
        torch.testing.assert_close(q.mean, r.mean, rtol=1e-14, atol=0)

def test_any_number_of_threads_gives_the_same():
    n = torch.get_num_threads()
    x = data(0, 16, 1, 64, 300); a = AudioTensor(torch.randn(8,1,20000)*.1, sr=16000)
    tfm = AudioToSpec.from_cfg(configs['mel'])
    def run():
        r = StatsRecorder((0,3), quantiles=True); r.update(x)
        return F.normalize(x, 1., 2.),W.normalize_sliding(x, 30, 10, True, True),F.standardize(a.plain()),r.mean,r.std,r._extra[2],F.silent_frames(a.plain())
    res = []
    try:
        for k in (1,2,3): torch.set_num_threads(k); res.append((run(),tfm(a).plain()))
    finally: torch.set_num_threads(n)
    for r,y in res[1:]:
        for p,q in zip(r, res[0][0]): torch.testing.assert_close(p, q, rtol=1e-13, atol=0)  # moments of parts are merged; all else is the same to the bit
        near(y, res[0][1], 1e-6, 1e-4)

def test_errors_of_a_part_come_out():
    def f(a, b):
        if a>0: raise RuntimeError('second part')
    n = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(RuntimeError, match='second part'): in_parts(f, 10)
    finally: torch.set_num_threads(n)

def test_they_stand_aside():
    x = torch.randn(8,1,64,400)
    assert compiled(x) is not None
    for y in (x.half(), x.bfloat16(), x.to_sparse(), torch.zeros(0,3), x.clone().requires_grad_(), torch.empty(9,9, device='meta'), AudioSpectrogram(x), torch.view_as_complex(torch.randn(500,500,2)).conj().imag):
        assert compiled(y) is None, (type(y),y.dtype)
    with torch.no_grad(): assert compiled(x.clone().requires_grad_()) is not None
    seen = []
    torch.func.vmap(lambda v: (seen.append(compiled(v)), v*2)[1])(x)
    torch.func.jvp(lambda v: (seen.append(compiled(v)), v*2)[1], (x,), (x,))
    with torch.autograd.forward_ad.dual_level(): seen.append(compiled(torch.autograd.forward_ad.make_dual(x, x)))
    torch.compile(lambda v: (seen.append(compiled(v)), v*2)[1], backend='eager')(x)
    assert seen==[None]*4
    with no_kernels():
        out = []
        th = threading.Thread(target=lambda: out.append(compiled(x))); th.start(); th.join()
        assert out==[None]

def test_gradients_are_those_of_torch():
    x = data(0, 1, 1, 3, 24, dtype=torch.float64, scale=1., off=0.)
    for f in (lambda v: F.normalize(v, 1., 2.), lambda v: W.normalize_sliding(v, 10, 5, True, True), lambda v: W.normalize_item(v), F.standardize, lambda v: F.to_db(v.square()+1), lambda v: F.spectrogram(v.flatten(), 16)):
        assert torch.autograd.gradcheck(f, (x.clone().requires_grad_(),))
        torch.testing.assert_close(f(x.clone().requires_grad_()).detach(), f(x), rtol=1e-9, atol=1e-9)  # with kernels and without

_without = """
import sys
sys.modules['specnorm_fastai.kernels'] = None  # as where numba cannot be imported; librosa's mel filters import it too
from specnorm_fastai.all import *
from specnorm_fastai import fast
import torch
x = AudioTensor(torch.randn(8,1,16000)*.1, sr=16000, lengths=[16000]*7+[9000])
assert fast.compiled(x.plain()) is None and fast._kernels() is None
y = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=160, n_mels=40))(AudioNormalize()(x))
r = StatsRecorder('frequency', quantiles=True); r.update(y)
z = SpecNormalize.from_recorder(r)(y); SlidingNormalize(50)(y); ItemNormalize()(y)
print(abs(z.plain().mean().item())<1)
"""
def test_all_works_where_numba_is_missing():
    r = subprocess.run([sys.executable,'-c',_without], capture_output=True, text=True)
    assert r.returncode==0 and 'True' in r.stdout, r.stderr[-2000:]

_forks = """
import torch
from specnorm_fastai.all import *
from specnorm_fastai import fast
torch.set_num_threads(1)  # OpenMP's own threads do not survive a fork, so workers have one
fast.torch.get_num_threads = lambda: 2
from fastai.data.core import TfmdDL
x = torch.arange(64*64*300.).view(64,1,64,300).sin()
want = normalize(x, 1., 2.)  # the pool of threads is running now
class Items:
    def __len__(self): return 8
    def __getitem__(self, i):
        return (normalize(x, 1., 2.).sum(),)
if __name__=='__main__':
    for ctx in (None,'spawn'):
        dl = torch.utils.data.DataLoader(Items(), batch_size=4, num_workers=2, multiprocessing_context=ctx)
        got = torch.cat([b[0] for b in dl])
        assert len(got)==8 and torch.allclose(got, want.sum(), atol=.1), (got,want.sum())
    print('done')
"""
def test_workers_that_are_forked_or_spawned_have_threads_of_their_own(tmp_path):
    (tmp_path/'f.py').write_text(_forks)
    r = subprocess.run([sys.executable, str(tmp_path/'f.py')], capture_output=True, text=True, timeout=300)
    assert r.returncode==0 and 'done' in r.stdout, r.stderr[-2000:]

def test_a_place_that_cannot_be_written_is_no_error(tmp_path):
    code = "import numba.core.caching as c\nc.CacheImpl._locator_classes = []\nfrom specnorm_fastai import kernels, fast\nimport torch\nassert fast.compiled(torch.zeros(99,999)) is kernels\nfrom specnorm_fastai.functional import normalize\nprint(normalize(torch.ones(99,999), 0., 2.).sum().item())"
    r = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True)
    assert r.returncode==0 and r.stdout.strip()==str(99*999/2), r.stderr[-2000:]

def test_autograd_notices_what_is_written_in_place():
    x = data(0, 4, 1, 8, 50)
    w = torch.ones(1, requires_grad=True)
    y = (x*w).sum()  # keeps x for the gradient of w
    F.normalize_(x, 1., 2.)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'): y.backward()

def test_in_place_normalization_is_told_by_what_came_in_and_never_decodes_in_place():
    from specnorm_fastai.transforms import SpecNormalize
    s = AudioSpectrogram.create(data(0, 4, 1, 8, 50), settings=dict(sr=16000, n_fft=14, hop_length=7, to_db=True, mel=False))
    n,want = SpecNormalize(-30., 10., inplace=True),SpecNormalize(-30., 10.)(s)
    z = n(s)
    assert torch.equal(z, want) and z.data_ptr()==s.data_ptr() and s.units==z.units=='std'
    d = n.decode(z)
    assert d.units=='dB' and torch.equal(z, want) and d.data_ptr()!=z.data_ptr()

def test_windows_of_tiny_and_huge_values():
    torch.manual_seed(0)
    for s,least in ((1e-22,1e-35),(1e-20,1e-35),(1e18,1e-5),(1e30,1e-5)):
        x = torch.rand(4,1,10,300)*s
        a,b = both(lambda: W.normalize_sliding(x, 100, 50, norm_vars=True, min_std=least))
        near(a, b, 1e-5, 1e-5)

def test_copies_of_recorders_stand_by_themselves_and_an_interrupt_leaves_them_whole(monkeypatch):
    import copy
    x = data(0, 3, 1, 5, 20)
    r = StatsRecorder(quantiles=True); r.update(x)
    c,n = copy.copy(r),r._extra[2].sum().item()
    r.update(x)
    assert c._extra[2].sum()==n and r._extra[2].sum()==2*n
    real = recorder._histogram
    def stopped(*a): real(*a); raise KeyboardInterrupt
    monkeypatch.setattr(recorder, '_histogram', stopped)
    with pytest.raises(KeyboardInterrupt): r.update(x)
    assert r._extra[2].sum()==2*n and r.frames['counted']==2*60 and r._table[0].sum()==2*n

_broken = """
import os,pathlib,sys,warnings
warnings.simplefilter('always')
import torch
from specnorm_fastai.functional import normalize
print(normalize(torch.ones(99,999), 0., 2.).sum().item())
"""
@pytest.mark.parametrize('how', ['empty','cut','disabled'])
def test_compiled_files_that_are_damaged_are_made_anew(how, tmp_path):
    import os
    env = {**os.environ, 'NUMBA_CACHE_DIR':str(tmp_path)}
    run = lambda **more: subprocess.run([sys.executable,'-c',_broken], capture_output=True, text=True, env={**env, **more})
    if how=='disabled': assert run(NUMBA_DISABLE_JIT='1').stdout.strip()==str(99*999/2) and not list(tmp_path.rglob('*.nbc')); return
    assert run().stdout.strip()==str(99*999/2)
    files = [f for f in tmp_path.rglob('*.nb*')]
    assert files
    for f in files: f.write_bytes(b'' if how=='empty' else f.read_bytes()[:40])
    r = run()
    assert r.returncode==0 and r.stdout.strip()==str(99*999/2), r.stderr[-1500:]
    assert 'compiled anew' in r.stderr

@given(seed=st.integers(0,999), c=st.integers(1,3), t=st.integers(1,400), dtype=dtypes, kind=st.sampled_from(['any','silent','nan','inf','tiny','turned']), u=st.floats(0,1))
def test_loud_crops_are_where_torch_finds_them(seed, c, t, dtype, kind, u):
    x,n = data(seed, c, t, dtype=dtype, scale=.1, off=0.),1+int(u*(t-1))
    if kind=='silent': x[:] = 0.
    if kind in ('nan','inf'): x[0,t//3] = float(kind)
    if kind=='tiny': x *= 1e-30
    if kind=='turned': x = x.T.contiguous().T
    least,fast._least = fast._least,1
    try:
        a,b = both(lambda: data_room._window_power(x, n))
        top = float(b.max())
        near(a, b, rtol=1e-12, atol=0. if top!=top else 1e-13*top)
        if kind!='any': return
        crop = data_room.ResizeSignal(n, min_energy=-3.)
        a,b = both(lambda: torch.as_tensor(list(crop._starts(x, n))))
        assert torch.equal(a, b)
    finally: fast._least = least
