"AudioToSpec around any module: torchaudio's and nnAudio's transforms, and modules that cannot be"
import copy,pickle,warnings
from functools import partial
import pytest,torch
from fastai.data.all import CategoryBlock,ColReader,DataBlock,IndexSplitter
from torch import nn

from specnorm_fastai.core import AudioTensor
from specnorm_fastai.data import AudioBlock,PadAudio,audio_table
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.functional import spectrogram
from specnorm_fastai.specstats import fingerprint
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.transforms import SpecNormalize

pytestmark = pytest.mark.filterwarnings('ignore:.*all zero values','ignore:.*nnAudio','ignore::DeprecationWarning')

def T():
    try: return pytest.importorskip('torchaudio', exc_type=ImportError).transforms
    except (RuntimeError,OSError) as e: pytest.skip(f'torchaudio does not import: {e}')  # built for another torch
def N():
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: return pytest.importorskip('nnAudio.features', exc_type=ImportError)
        except (RuntimeError,OSError,AttributeError) as e: pytest.skip(f'nnAudio does not import: {e}')

def noise(*shape, sr=16000, seed=0, **kw): return AudioTensor(torch.randn(*shape, generator=torch.Generator().manual_seed(seed))*.1, sr=sr, **kw)
Q = dict(verbose=False)
PIPES = dict(
    spec=lambda: T().Spectrogram(n_fft=256), mel=lambda: T().MelSpectrogram(16000, n_fft=400, n_mels=32), mfcc=lambda: T().MFCC(16000, n_mfcc=13, melkwargs=dict(n_mels=32)),
    db=lambda: nn.Sequential(T().MelSpectrogram(16000, n_mels=32), T().AmplitudeToDB(top_db=80)), odd=lambda: T().Spectrogram(n_fft=255, win_length=200, hop_length=60, power=1., center=False, pad=9),
    n_stft=lambda: N().STFT(n_fft=256, output_format='Magnitude', **Q), n_mel=lambda: N().MelSpectrogram(sr=16000, n_fft=256, n_mels=32, hop_length=128, **Q), n_mfcc=lambda: N().MFCC(sr=16000, n_mfcc=13, n_fft=256, n_mels=32, hop_length=128, **Q),
    n_cqt=lambda: N().CQT1992v2(sr=16000, fmin=500, n_bins=24, hop_length=128, **Q), n_gamma=lambda: N().Gammatonegram(sr=16000, n_fft=256, n_bins=24, hop_length=128, **Q),
    n_db=lambda: nn.Sequential(N().MelSpectrogram(sr=16000, n_fft=256, n_mels=32, hop_length=128, **Q), T().AmplitudeToDB(top_db=40)))
pipes = pytest.mark.parametrize('make', PIPES.values(), ids=PIPES)
def close(a, b): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4*max(1., b.abs().max().item()))  # float32 sums in another order

@pipes
def test_item_batch_and_stereo_are_the_modules_own(make):
    pipe = make(); t,x = AudioToSpec(pipe),noise(3,2,4000)
    want = torch.stack([torch.stack([pipe(c[None,None])[0].reshape(pipe(c[None,None]).shape[-2:]) for c in b]) for b in x.plain()])  # one channel of one clip at a time
    if any(getattr(m, 'top_db', None) for m in pipe.modules()): x = AudioTensor(x[:,:1], sr=16000); want = want[:,:1]  # the floor is of all channels of a clip
    y = t(x)
    close(y.plain(), want); close(t(x[1]).plain(), want[1]); close(t(x[1:2,:1]).plain(), want[1:2,:1])
    assert y.sr==16000 and y.nchannels==x.shape[1] and y.lengths is None and t(noise(1,4000, fn='a.wav')).fn=='a.wav'

@pipes
def test_stereo_items_are_finite_and_alike_in_batches(make):
    t,x = AudioToSpec(make()),noise(3,2,4000)
    y = t(x); assert y.shape[:2]==(3,2) and y.isfinite().all()
    for i in range(3): close(y[i].plain(), t(x[i]).plain())

@pipes
def test_items_do_not_couple(make):
    t = AudioToSpec(make()); quiet = noise(1,4000)*1e-4
    y = t(torch.stack([noise(1,4000)*10, quiet]))  # 120 dB between them, more than any top_db
    torch.testing.assert_close(y[1].plain(), t(quiet).plain(), rtol=1e-3, atol=1e-3*t(quiet).plain().abs().max().item())

@pipes
def test_padded_items_are_as_alone(make):
    t,items = AudioToSpec(make()),[noise(1,n, seed=n, fn=f'{n}.wav') for n in (4000,2200,2200,3111)]
    xb = t(torch.stack(PadAudio()(items)))
    assert xb.fn==tuple(f'{n}.wav' for n in (4000,2200,2200,3111))
    for i,it in enumerate(items):
        alone = t(it); k = int(xb.lengths[i])
        assert k==alone.shape[-1]; close(xb[i].plain()[...,:k], alone.plain())
        assert xb[i].isfinite().all()
        if alone.silent is not None: assert torch.equal(xb.silent[i,:k], alone.silent)

def test_padding_is_as_silence():
    t = AudioToSpec(PIPES['spec']())
    xb = t(torch.stack(PadAudio()([noise(1,4000),noise(1,2000)])))
    assert (xb.plain()[1,:,:,int(xb.lengths[1]):]==0).all()
    class Log(nn.Module):
        def __init__(self): super().__init__(); self.s = PIPES['spec']()
        def forward(self, x): return self.s(x).log()
    assert AudioToSpec(Log())(torch.stack(PadAudio()([noise(1,4000),noise(1,2000)]))).isfinite().all()  # silence is -inf there

def test_settings_are_read():
    s = AudioToSpec(PIPES['mel']()).settings
    assert {k:s[k] for k in ('n_fft','hop_length','win_length','n_mels','sample_rate','f_min','f_max','mel_scale','power','mel','to_db','center','pad')}==dict(n_fft=400, hop_length=200, win_length=400, n_mels=32, sample_rate=16000, f_min=0., f_max=8000., mel_scale='htk', power=2., mel=True, to_db=False, center=True, pad=0)
    y = AudioToSpec(PIPES['db']())(noise(1,4000)); assert y.units=='dB' and y.settings['top_db']==80 and y.settings['n_mels']==32
    assert [AudioToSpec(PIPES[k]())(noise(1,4000)).units for k in ('spec','odd','mfcc','mel')]==['power','magnitude','coefficient','power']
    s = AudioToSpec(PIPES['n_stft']()).settings; assert (s['n_fft'],s['hop_length'])==(256,64)
    given = AudioToSpec(PIPES['spec'](), settings=dict(mel=False, to_db=False, n_fft=256, note='mine')); assert given(noise(1,4000)).settings['note']=='mine'

def test_rows_know_their_frequencies():
    f = AudioToSpec(PIPES['spec']())(noise(1,4000)).freqs; assert len(f)==129 and f[-1]==8000
    f = AudioToSpec(PIPES['odd']())(noise(1,4000)).freqs; assert len(f)==128 and abs(f[-1]-127*16000/255)<1e-9
    want = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_mels=32))(noise(1,4000)).freqs
    assert AudioToSpec(PIPES['mel']())(noise(1,4000)).freqs==want==AudioToSpec(PIPES['db']())(noise(1,4000)).freqs
    for k in ('mfcc','n_cqt','n_gamma'): assert AudioToSpec(PIPES[k]())(noise(1,4000)).freqs is None

def test_another_rate_is_refused():
    for k in ('mel','db','mfcc'):
        with pytest.raises(ValueError, match='made for 16000 Hz, .* has 8000 Hz'): AudioToSpec(PIPES[k]())(noise(1,4000, sr=8000))
    assert AudioToSpec(PIPES['spec']())(noise(1,4000, sr=8000)).sr==8000
    with pytest.raises(ValueError, match='does not know its sample rate'): AudioToSpec(PIPES['spec']())(AudioTensor(torch.zeros(1,4000)))

@pytest.mark.parametrize('kind,cfg', [('spec',dict(n_fft=256)),('odd',dict(n_fft=255, win_length=200, hop_length=60, power=1., center=False, pad=9))])
def test_values_and_silence_are_those_of_the_configuration(kind, cfg):
    x = noise(1,6000); x[...,1500:4000] = 0.
    a,b = AudioToSpec(PIPES[kind]())(x),AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(to_db=False, **cfg))(x)
    close(a.plain(), b.plain()); assert torch.equal(a.silent, b.silent) and 0<a.silent.sum()<a.shape[-1] and a.freqs==b.freqs
    assert AudioToSpec(PIPES['n_cqt']())(x).silent is None  # nobody knows its windows

@pipes
def test_pickles(make):
    t,x = AudioToSpec(make()),noise(1,4000)
    p = pickle.loads(pickle.dumps(t)); assert torch.equal(p(x), t(x)) and p.settings==t.settings and p.name==t.name
    assert fingerprint(copy.deepcopy(t)(x))==fingerprint(t(x))

def prints(*ps): return [AudioToSpec(p).settings['pipe'] for p in ps]
def test_fingerprints_differ_where_modules_do():
    S,M,A = T().Spectrogram,T().MelSpectrogram,T().AmplitudeToDB
    ps = prints(S(256), S(256, hop_length=100), S(256, power=1.), S(256, window_fn=torch.hamming_window), S(256, wkwargs=dict(periodic=False)), S(256, normalized=True), S(256, center=False), S(256, pad_mode='constant'), S(256, pad=1),
        M(16000, n_mels=32), M(16000, n_mels=32, f_max=7000.), M(16000, n_mels=32, norm='slaney'), M(16000, n_mels=32, mel_scale='slaney'), nn.Sequential(S(256),A(top_db=80)), nn.Sequential(S(256),A(top_db=60)), nn.Sequential(S(256),A('magnitude', 80)))
    assert len(set(ps))==len(ps)
    assert prints(S(256), S(256))[0]==ps[0]

class Conv(nn.Module):
    "A learned filterbank"
    def __init__(self, stride=64, sizes=(1,2), f=None, kernel=None): super().__init__(); self.conv,self.sizes,self.f,self.kernel = nn.Conv1d(1, 8, 128, stride),sizes,f,kernel
    def forward(self, x): return self.conv(x.reshape(-1,1,x.shape[-1])).reshape(*x.shape[:2],8,-1)

def test_fingerprints_see_tuples_lists_and_plain_tensors():
    ps = prints(Conv(), Conv(stride=32), Conv(sizes=[1,3]), Conv(sizes=dict(a=1)), Conv(kernel=torch.ones(3)), Conv(kernel=torch.zeros(3)))
    assert len(set(ps))==len(ps) and prints(Conv())[0]==ps[0]

def test_fingerprints_do_not_see_training_or_precision():
    m = Conv(); a = prints(m)
    with torch.no_grad(): m.conv.weight.add_(1)
    assert prints(m.eval())==a==prints(m.train())==prints(m.to('cpu'))

@pipes
def test_fingerprints_do_not_see_use(make):
    p = make(); a = prints(p); AudioToSpec(p)(noise(1,4000)); assert prints(p)==a

def test_a_module_learns_through_the_transform():
    m = Conv(); AudioToSpec(m)(torch.stack(PadAudio()([noise(1,4000),noise(1,2000)]))).sum().backward()
    assert m.conv.weight.grad.isfinite().all() and m.conv.weight.grad.abs().sum()>0

@pytest.mark.parametrize('kind', ['spec','db','n_mel'])
@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16,torch.float64])
def test_other_precisions_are_near(kind, dtype):
    t,x = AudioToSpec(PIPES[kind]()),noise(2,1,4000)
    y,want = t(x.to(dtype)),t(x.to(dtype).float())
    assert y.dtype==torch.float32; close(y.plain(), want.plain())
    with torch.autocast('cpu', torch.bfloat16): close(t(x).plain(), t(x.float()).plain())

class Gives(nn.Module):
    def __init__(self, f): super().__init__(); self.f = f
    def forward(self, x): return self.f(x)

@pytest.mark.parametrize('f,error,what', [
    (lambda x: torch.stft(x[:,0], 64, return_complex=True, window=torch.ones(64))[:,None], ValueError, 'complex'), (lambda x: (x,x), TypeError, 'tuple'), (lambda x: None, TypeError, 'NoneType'), (lambda x: x.numpy(), TypeError, 'ndarray'),
    (lambda x: x, ValueError, r'\(2, 2, 400\)'), (lambda x: x[...,None,None], ValueError, r'\(2, 2, 400, 1, 1\)'), (lambda x: x.mean(), ValueError, r'\(\)'), (lambda x: x.reshape(1,4,20,20), ValueError, r'\(1, 4, 20, 20\)'), (lambda x: x.reshape(2,2,20,20).long(), ValueError, 'int64')])
def test_what_is_no_spectrogram_is_named(f, error, what):
    with pytest.raises(error, match='pipe: expected Gives to give .*'+what): AudioToSpec(Gives(f))(noise(2,2,400))

def test_no_module_is_refused():
    for p in (lambda x: x, None, torch.stft, 'mel', AudioConfig.Voice(), nn.Conv1d):
        with pytest.raises(TypeError, match='pipe: expected an nn.Module'): AudioToSpec(p)

def test_bad_audio_is_refused_as_by_a_configuration():
    t = AudioToSpec(PIPES['spec']())
    with pytest.raises(TypeError, match='floating point.*int16'): t(AudioTensor(torch.ones(1,4000).short(), sr=16000))
    with pytest.raises(ValueError, match='at least one'): t(AudioTensor(torch.ones(1,0), sr=16000))
    with pytest.raises(ValueError, match='channel, time'): t(AudioTensor(torch.ones(4000), sr=16000))
    with pytest.raises(ValueError, match='channel, time'): t(AudioTensor(torch.ones(1,1,1,4000), sr=16000))

def block(synthetic, **kw):
    df = audio_table(synthetic)[:16]
    return DataBlock((AudioBlock,CategoryBlock), get_x=ColReader('path'), get_y=ColReader('category'), splitter=IndexSplitter(range(12,16)), **kw),df

def test_statistics_and_workers(synthetic, monkeypatch):
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', .2)  # workers end within a moment
    t = AudioToSpec(PIPES['db']())
    b,df = block(synthetic, item_tfms=t, batch_tfms=SpecNormalize(axes='frequency'))
    dls = b.dataloaders(df, bs=4, num_workers=2)
    x = torch.cat([xb.plain() for xb,_ in dls.valid]); assert x.isfinite().all() and x.shape[1:3]==(1,32)
    b2,_ = block(synthetic, batch_tfms=AudioToSpec(PIPES['db']()))
    stats = collect_stats(b2.dataloaders(df, bs=4, num_workers=0))
    norm = dls.train.after_batch.fs[-1]
    torch.testing.assert_close(norm.mean, stats.reduce('frequency').mean, rtol=1e-6, atol=1e-5)  # items alone or in batches: float32 sums in another order
    torch.testing.assert_close(norm.std, stats.reduce('frequency').std, rtol=1e-6, atol=1e-5)
    n = SpecNormalize.from_stats(stats)
    assert n(AudioToSpec(PIPES['db']())(noise(1,4000))).units=='std'
    for other in (AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_mels=32, top_db=80.)),AudioToSpec(nn.Sequential(T().MelSpectrogram(16000, n_mels=32, f_min=50.), T().AmplitudeToDB(top_db=80)))):
        with pytest.raises(ValueError, match='another pipeline'): n(other(noise(1,4000)))

# ---- what breakers found

class Gained(torch.nn.Module):
    def __init__(self, v): super().__init__(); self.n_fft,self.hop_length = 400,200; v(self)
    def forward(self, x): return spectrogram(x, 400)

class Plain:
    def __init__(self, g): self.g = g
    def method(self): return self.g

def _set(k, v): return lambda m: setattr(m, k, v)

@pytest.mark.parametrize('a,b', [(_set('_gain',1.),_set('_gain',5.)), (_set('cfg',Plain(1)),_set('cfg',Plain(5))), (_set('f',lambda x: x),_set('f',lambda x: x*2)),
    (_set('f',partial(torch.mul, other=1)),_set('f',partial(torch.mul, other=5))), (_set('s',{1,2}),_set('s',{1,3})), (_set('d',torch.float16),_set('d',torch.float32)),
    (_set('l',[torch.nn.Conv1d(1,1,3,stride=1)]),_set('l',[torch.nn.Conv1d(1,1,3,stride=2)])),
    (_set('p',torch.nn.Parameter(torch.ones(2), requires_grad=False)),_set('p',torch.nn.Parameter(torch.zeros(2), requires_grad=False))),
    (_set('m',Plain(1).method),_set('m',Plain(2).method)), (_set('r',range(1)),_set('r',range(2))), (_set('t',torch.ones(4)),_set('t',torch.ones(2,2))),
    (_set('num_samples',1),_set('num_samples',2))])
def test_modules_that_differ_anywhere_have_other_digests(a, b):
    x = AudioTensor(torch.rand(1,4000), sr=16000)
    assert AudioToSpec(Gained(a))(x).pipe!=AudioToSpec(Gained(b))(x).pipe and AudioToSpec(Gained(a))(x).pipe==AudioToSpec(Gained(a))(x).pipe

def test_a_class_of_the_same_name_with_other_code_has_another_digest():
    def make(power):
        class Same(torch.nn.Module):
            if power==1:
                def forward(self, x): return spectrogram(x, 400, power=1.)
            else:
                def forward(self, x): return spectrogram(x, 400, power=2.)
        return Same()
    assert AudioToSpec(make(1)).settings['pipe']!=AudioToSpec(make(2)).settings['pipe']

def test_a_module_runs_in_evaluation_mode_and_use_does_not_change_its_digest():
    class Net(torch.nn.Module):
        def __init__(self): super().__init__(); self.norm,self.drop = torch.nn.BatchNorm2d(1),torch.nn.Dropout(.5)
        def forward(self, x): return self.drop(self.norm(spectrogram(x, 400)))
    net,x = Net(),AudioTensor(torch.rand(1,4000), sr=16000)
    t = AudioToSpec(net)
    assert torch.equal(t(x).plain(), t(x).plain())
    net.train(); net(torch.rand(2,1,4000)); assert AudioToSpec(net).settings['pipe']==t.settings['pipe']

@pytest.mark.parametrize('known', [True,False])
@pytest.mark.parametrize('ns', [(3000,),(3000,2000),(8000,2000),(8000,8000)], ids=str)
def test_a_padded_batch_is_as_wide_as_its_padding(known, ns):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            if known: self.n_fft,self.hop_length = 400,200
        def forward(self, x): return spectrogram(x, 400)
    t,x = AudioToSpec(Net()),AudioTensor(torch.rand(len(ns),1,8000), sr=16000, lengths=list(ns))
    y = t(x); assert y.shape[-1]==41 and y.lengths.tolist()==[1+n//200 for n in ns]
    for i,n in enumerate(ns): torch.testing.assert_close(y[i,...,:1+n//200].plain(), t(AudioTensor(x.plain()[i,:,:n], sr=16000)).plain(), rtol=1e-5, atol=1e-6)
    assert (y.silent is not None)==known

def test_modules_in_the_wrong_place_are_told():
    m = Gained(lambda m: None)
    with pytest.raises(TypeError, match=r'AudioToSpec\(Gained'): AudioToSpec.from_cfg(m)
    with pytest.raises(TypeError, match=r'AudioToSpec\(Gained'): AudioToMFCC(m)

def test_a_method_that_forward_calls_is_part_of_the_digest():
    def make(k):
        class Same(torch.nn.Module):
            def forward(self, x): return self.h(spectrogram(x, 400))
        Same.h = (lambda self, z: z) if k==1 else (lambda self, z: 2*z)
        return Same()
    assert AudioToSpec(make(1)).settings['pipe']!=AudioToSpec(make(2)).settings['pipe']

def test_digests_are_the_same_in_every_process():
    code = """if 1:
        import torch,numpy as np
        from specnorm_fastai.features import AudioToSpec
        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.act,self.f,self.o,self.s = torch.relu,(lambda k: k in {'a','b','c'}),np.array(['x',1], dtype=object),{'p','q','r'}
            def forward(self, x): return x
        print(AudioToSpec(Net()).settings['pipe'])"""
    import os,subprocess,sys
    runs = {subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, check=True, env={**os.environ,'PYTHONHASHSEED':str(k)}).stdout for k in (1,9)}
    assert len(runs)==1, runs

def test_scripted_modules_are_pipes_too():
    class Net(torch.nn.Module):
        def forward(self, x): return torch.stft(x.reshape(-1, x.shape[-1]), 64, window=torch.ones(64), return_complex=True).abs()[:,None]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); net = torch.jit.script(Net())
    x = AudioTensor(torch.rand(1,800), sr=16000)
    torch.testing.assert_close(AudioToSpec(net)(x).plain(), AudioToSpec(Net())(x).plain())

class Classy(nn.Module):
    "What torchaudio keeps as attributes stands in the class"
    n_fft,hop_length,sample_rate,gain = 256,100,16000,2.
    def forward(self, x): return spectrogram(x, self.n_fft, hop_length=self.hop_length, power=1)[...,::3,:]*self.gain

def test_settings_are_read_off_a_class_too():
    sg = AudioToSpec(Classy())(noise(1,4000))
    assert (sg.n_fft,sg.hop_length,sg.sample_rate)==(256,100,16000)
    with pytest.raises(ValueError, match='16000'): AudioToSpec(Classy())(noise(1,4000, sr=8000))
    own = Classy(); own.hop_length = 50
    assert AudioToSpec(own).settings['hop_length']==50  # an attribute of its own comes first
    assert 'n_fft' not in AudioToSpec(nn.Sequential(nn.Identity())).settings  # torch's classes have none

def test_other_data_of_a_class_is_another_module(monkeypatch):
    was = AudioToSpec(Classy()).settings['pipe']
    monkeypatch.setattr(Classy, 'gain', 3.)
    assert AudioToSpec(Classy()).settings['pipe']!=was
    monkeypatch.setattr(Classy, 'gain', 2.)
    assert AudioToSpec(Classy()).settings['pipe']==was

def test_units_and_frequencies_can_be_given():
    hz = torch.arange(43)*3*16000/256
    t = AudioToSpec(Classy(), units='magnitude', freqs=hz)
    sg = t(noise(2,1,4000))
    assert sg.units=='magnitude' and sg.freqs==tuple(hz.tolist()) and sg[0].freqs==sg.freqs
    assert fingerprint(sg)['units']=='magnitude' and AudioToSpec(Classy())(noise(1,4000)).freqs is None
    t = pickle.loads(pickle.dumps(t)); assert t(noise(1,4000)).freqs==sg.freqs
    with pytest.raises(ValueError, match='freqs: expected one for each of the 43 rows that Classy gives, got 2'): AudioToSpec(Classy(), freqs=[1.,2.])(noise(1,4000))
    for bad in ([], 3., ['x'], [1.,float('nan')], [[1.]]):
        with pytest.raises(ValueError, match='freqs: expected one finite number'): AudioToSpec(Classy(), freqs=bad)
    for bad in ('', 'std', 3):
        with pytest.raises(ValueError, match='units: expected a name'): AudioToSpec(Classy(), units=bad)
    with pytest.raises(ValueError, match='units, freqs: expected None'): AudioToSpec(AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram()).pipe, units='dB')
