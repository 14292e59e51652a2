"SpecFrontend against the fastai pipeline; saved, exported, in ONNX, from DataLoaders, in pieces"
import copy,functools,json,pickle,re,subprocess,sys,warnings
import numpy as np,pytest,torch
from fastai.data.all import CategoryBlock,ColReader,DataBlock,IndexSplitter,Transform
from fasttransform.transform import Pipeline
from hypothesis import given,settings,strategies as st
from torch import nn

from specnorm_fastai.core import AudioSpectrogram,AudioTensor,get_audio_files
from specnorm_fastai.data import AudioBlock,AudioPadType,DownmixMono,PadAudio,ResizeSignal,audio_table
from specnorm_fastai.augment import AddNoise,CropTime,Delta,DeltaGPU,MaskFreq,TfmResize
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec,DynamicRangeCompression
from specnorm_fastai.frontend import SpecFrontend,SpecStream
from specnorm_fastai.recorder import StatsRecorder
from specnorm_fastai.specstats import SpecStats
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize
from specnorm_fastai.ways_tfms import *

pytestmark = pytest.mark.filterwarnings('ignore:.*filters hold no frequency','ignore::DeprecationWarning','ignore::FutureWarning')
SMALL = dict(n_fft=256, hop_length=100)
CFGS = dict(Basic=lambda **k: AudioConfig.BasicSpectrogram(**{**SMALL,**k}), Mel=lambda **k: AudioConfig.BasicMelSpectrogram(**{**SMALL,'n_mels':32,**k}), Voice=lambda **k: AudioConfig.Voice(n_mels=64, **k),
    VITS=lambda **k: AudioConfig.VITS(**k), Gammatone=lambda **k: AudioConfig.Gammatone(n_filters=24, **k), LinearBands=lambda **k: AudioConfig.LinearBands(n_filters=24, **k),
    MFCC=lambda **k: AudioConfig.BasicMFCC(n_mfcc=13, melkwargs=dict(n_mels=32, **SMALL), **k), TopDb=lambda **k: AudioConfig.BasicMelSpectrogram(**{**SMALL,'n_mels':32,'top_db':30.,**k}))
kinds = pytest.mark.parametrize('kind', CFGS)
waves = pytest.mark.parametrize('wave', [None,'standard'])

def noise(*shape, sr=16000, seed=0, **kw): return AudioTensor((torch.rand(*shape, generator=torch.Generator().manual_seed(seed))-.5)*torch.linspace(.1, 1, shape[-1]), sr=sr, **kw)
def transform(kind, **kw): return (AudioToMFCC if kind=='MFCC' else AudioToSpec).from_cfg(CFGS[kind](**kw))
def statistics(before, channels=1, sr=16000):
    r = StatsRecorder((0,3)); r.update(before(noise(6,channels,6000, sr=sr, seed=9))); return SpecStats.from_recorder(r)

def made(kind, wave=None, axes='global', channels=1, **kw):
    "A front end and the pipeline that it stands for"
    before = Pipeline(([AudioNormalize()] if wave else [])+[transform(kind, **kw)])
    stats = statistics(before, channels)
    return SpecFrontend(before.fs[-1], 16000, stats, axes=axes, waveform_norm=wave),Pipeline([*before.fs,SpecNormalize.from_stats(stats, axes=axes)])
def close(a, b, tol=1e-5): torch.testing.assert_close(torch.as_tensor(a).as_subclass(torch.Tensor), torch.as_tensor(b).as_subclass(torch.Tensor), rtol=0, atol=tol)

# ---- the same numbers

@kinds
@waves
@pytest.mark.parametrize('axes', ['global','frequency'])
@pytest.mark.parametrize('channels', [1,2])
def test_front_end_is_the_pipeline(kind, wave, axes, channels):
    f,p = made(kind, wave, axes, channels)
    x = noise(3,channels,5001); want = p(x)
    for inp in (x,x.plain()): close(f(inp), want)
    item = AudioTensor(x.plain()[1], sr=16000); close(f(item[None])[0], p(item))
    xb = torch.stack(PadAudio()([noise(channels,n, seed=n) for n in (5000,1024,3001)])); want = p(xb)
    close(f(xb), want); close(f(xb.plain(), xb.lengths), want); close(f(xb.plain(), xb.lengths.int()), want)
    for i,n in enumerate((5000,1024,3001)):
        k = int(f.n_frames(n)); assert k==int(want.lengths[i]); close(f(xb.plain()[i:i+1,:,:n])[0], want.plain()[i,...,:k], 1e-4)  # sums in another order, over the std
    assert f.n_rows==want.height and f(x).dtype==torch.float32 and type(f(x)) is torch.Tensor and f.n_frames(torch.tensor([5000,3001])).tolist()==want.lengths[[0,2]].tolist()

@waves
def test_statistics_may_come_in_any_form(wave):
    f,p = made('Mel', wave, 'frequency'); n,x = p.fs[-1],noise(2,1,3000)
    for stats in (n,(n.mean,n.std),(n.mean.flatten().tolist(),n.std.flatten().tolist())): close(SpecFrontend(transform('Mel'), 16000, stats, axes='frequency', waveform_norm=wave)(x), p(x))
    close(SpecFrontend(transform('Mel'), 16000, waveform_norm=wave)(x), Pipeline(p.fs[:-1])(x).plain())
    close(SpecFrontend(CFGS['Mel'](), 16000, n, waveform_norm=wave)(x), p(x))

def test_mono_is_downmixed_first():
    f,p = made('Mel'); m = SpecFrontend(transform('Mel'), 16000, f_stats(p), mono=True)
    x = noise(2,2,4000); close(m(x), p(DownmixMono()(x))); close(m(x[:,:1]), p(x[:,:1]))
def f_stats(p): return p.fs[-1].stats

def test_float64_and_half_samples():
    f,_ = made('Mel'); x = noise(2,1,3000).plain()
    assert f(x.double()).dtype==torch.float64; close(f(x.double()).float(), f(x), 1e-4)  # float32 FFTs and filters
    for dt in (torch.float16,torch.bfloat16): assert f(x.to(dt)).dtype==torch.float32; close(f(x.to(dt)), f(x.to(dt).float()))
    with torch.autocast('cpu', torch.bfloat16): assert torch.equal(f(x), made('Mel')[0](x)) and f(x).dtype==torch.float32

@kinds
@waves
def test_silence_is_finite_and_gradients_flow(kind, wave):
    f,_ = made(kind, wave)
    for x in (torch.zeros(2,1,3000),noise(2,1,3000).plain()):
        x = x.clone().requires_grad_(); y = f(x); assert y.isfinite().all(); y.sum().backward(); assert x.grad.isfinite().all()

def test_any_module_inside():
    class Conv(nn.Module):
        def __init__(self): super().__init__(); self.conv = nn.Conv1d(1, 8, 128, 64)
        def forward(self, x): return self.conv(x.reshape(-1,1,x.shape[-1])).reshape(*x.shape[:2],8,-1)
    m = Conv(); f,x = SpecFrontend(AudioToSpec(m), 16000, (1.,2.)),noise(3,2,4000)
    close(f(x), (AudioToSpec(m)(x).plain()-1)/2)
    assert {'pipe.conv.weight','pipe.conv.bias'}<=set(dict(f.named_parameters())) and 'Conv' in repr(f)
    with pytest.raises(ValueError, match='lengths: Conv'): f(x.plain(), torch.tensor([4000,3000,2000]))
    with pytest.raises(ValueError, match='Conv'): f.stream()
    with pytest.raises(ValueError, match='Conv'): f.n_frames(100)
    p = f.export(channels=2).module(); close(p(noise(4,2,5000).plain()), f(noise(4,2,5000)))

@pytest.mark.parametrize('make', ['torchaudio','nnAudio'])
def test_other_packages_modules_are_exported(make):
    try:
        with warnings.catch_warnings(): warnings.simplefilter('ignore'); m = pytest.importorskip(f"{make}.{'transforms' if make=='torchaudio' else 'features'}", exc_type=ImportError)
    except (RuntimeError,OSError,AttributeError) as e: pytest.skip(f'{make} does not import: {e}')
    for ch in (1,2):
        f = SpecFrontend(AudioToSpec(m.Spectrogram(n_fft=256) if make=='torchaudio' else m.MelSpectrogram(sr=16000, n_fft=256, n_mels=32, hop_length=128, verbose=False)), 16000, (0.,1.))
        p = f.export(ch).module()
        for n,b in ((3300,1),(5001,3)): x = noise(b,ch,n).plain(); close(p(x), f(x))

# ---- saved and copied

@kinds
@pytest.mark.parametrize('axes', ['global','frequency'])
def test_state_dict_round_trip(kind, axes, tmp_path):
    f,p = made(kind, 'standard', axes); torch.save(f.state_dict(), tmp_path/'f.pth')
    n = p.fs[-1]; g = SpecFrontend(transform(kind), 16000, (torch.zeros_like(n.mean),torch.ones_like(n.std)), axes=axes, waveform_norm='standard')
    x = noise(2,1,3000); assert not torch.allclose(g(x), f(x))
    g.load_state_dict(torch.load(tmp_path/'f.pth')); close(g(x), f(x), 1e-6)

@pytest.mark.parametrize('other,what', [(lambda: SpecFrontend(transform('Mel', hop_length=128), 16000, (0.,1.)),'hop_length: 100 .*, 128 here'), (lambda: SpecFrontend(transform('Mel'), 22050, (0.,1.)),'22050'), (lambda: SpecFrontend(transform('Mel'), 16000, (0.,1.), waveform_norm='standard'),'waveform_norm'),
    (lambda: SpecFrontend(transform('Mel', top_db=80.), 16000, (0.,1.)),'top_db'), (lambda: SpecFrontend(transform('VITS'), 16000, (0.,1.)),'units'), (lambda: SpecFrontend(transform('MFCC'), 16000, (0.,1.)),'n_mfcc')])
def test_state_dict_of_another_pipeline_is_refused(other, what):
    o = other()
    with pytest.raises((ValueError,RuntimeError), match=what): o.load_state_dict(made('Mel')[0].state_dict())

def test_statistics_of_another_pipeline_are_refused():
    _,p = made('Mel'); s = f_stats(p)
    for kw in (dict(hop_length=128), dict(norm='slaney'), dict(top_db=80.)):
        with pytest.raises(ValueError, match=next(iter(kw))): SpecFrontend(transform('Mel', **kw), 16000, s)
        assert SpecFrontend(transform('Mel', **kw), 16000, s, unchecked=True)(noise(1,1,3000)).isfinite().all()
    with pytest.raises(ValueError, match='waveform_norm'): SpecFrontend(transform('Mel'), 16000, s, waveform_norm='standard')

@waves
def test_copies_and_pickles(wave):
    f,_ = made('VITS', wave, 'frequency'); x = noise(2,1,3000)
    for g in (copy.deepcopy(f),pickle.loads(pickle.dumps(f)),copy.deepcopy(f).eval()): assert torch.equal(g(x), f(x)) and repr(g)==repr(f)
    g = copy.deepcopy(f); g.mean += 1; assert not torch.equal(g(x), f(x))

def test_moved_to_another_precision():
    f,_ = made('Mel', 'standard', 'frequency'); x = noise(2,1,3000).plain(); want = f(x)
    g = copy.deepcopy(f).to(torch.float64); assert torch.equal(g(x), want) and g(x.double()).dtype==torch.float64
    for dt in (torch.float32,torch.bfloat16,torch.float16): close(copy.deepcopy(f).to(dt)(x), want, 1e-5 if dt==torch.float32 else .2 if dt==torch.bfloat16 else .05)  # the statistics' own rounding
    assert copy.deepcopy(f).half()(x).dtype==torch.float32

# ---- exported

LENGTHS,BATCHES = (1500,1501,4000,16001),(1,2,5)

@kinds
@waves
def test_exported_program_is_the_front_end(kind, wave):
    f,_ = made(kind, wave, 'frequency'); p = f.export().module()
    for n,b in ((1500,1),(1501,5),(16001,2)): x = noise(b,1,n, seed=n).plain(); close(p(x), f(x))

def test_export_says_that_torch_is_too_old(monkeypatch):
    f,_ = made('Mel')
    monkeypatch.setattr(torch.export, 'export', lambda mod, args, kwargs=None, *, dynamic_shapes=None, strict=True: None)  # as in torch 2.6
    with pytest.raises(ImportError, match='torch 2.9 or newer, got '+torch.__version__.replace('+', '.')): f.export()

def test_export_takes_clips_from_two_frames_on():
    for kind,kw in (('VITS',{}),('Mel',dict(center=False)),('Basic',dict(center=False, pad=20)),('VITS',dict(mirror=0))):
        f = SpecFrontend(CFGS[kind](**kw), 16000); least = next(n for n in range(f.least, 9999) if f.n_frames(n)>1)
        p = f.export().module()
        for n in (least,least+1): x = noise(2,1,n).plain(); close(p(x), f(x))

def test_export_of_stereo_and_without_statistics():
    f,_ = made('Mel', channels=2); x = noise(3,2,2000).plain(); close(f.export(channels=2).module()(x), f(x))
    f = SpecFrontend(CFGS['Basic'](), 16000, mono=True); close(f.export(channels=2).module()(x), f(x))

def test_exported_file_runs_where_only_torch_is(tmp_path):
    for kind in ('VITS','Basic','MFCC'):
        f,_ = made(kind, 'standard' if kind=='Basic' else None, 'frequency'); torch.export.save(f.export(), tmp_path/f'{kind}.pt2')
        torch.save([(x,f(x)) for n in (1500,4001) for b in (1,3) for x in [noise(b,1,n).plain()]], tmp_path/f'{kind}.pth')
    code = ("import sys,torch\nfor k in sys.argv[1:]:\n p=torch.export.load(k+'.pt2').module()\n print(max((p(x)-y).abs().max().item() for x,y in torch.load(k+'.pth')))\n"
            "assert not {'specnorm_fastai','fastai','librosa','fastcore'}&set(sys.modules)")
    r = subprocess.run([sys.executable,'-W','ignore','-c',code,'VITS','Basic','MFCC'], cwd=tmp_path, capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-2000:]
    assert all(float(v)<=1e-5 for v in r.stdout.split()) and len(r.stdout.split())==3

def bass(*shape, seed=0):
    "A walk: high bands lie 60 dB under the lowest"
    x = noise(*shape, seed=seed).plain().cumsum(-1); x = x-x.mean(-1, keepdim=True); return x/x.abs().amax(-1, keepdim=True)*.9

@pytest.fixture(scope='module')
def onnx(tmp_path_factory):
    "Front ends as ONNX files, and what a process that has only NumPy and onnxruntime makes of them"
    for m in ('onnx','onnxscript','onnxruntime'): pytest.importorskip(m)
    path,fs = tmp_path_factory.mktemp('onnx'),dict(mel=made('Mel', None, 'frequency', n_fft=400)[0], mel_norm=made('Mel', 'standard', n_fft=400)[0], mfcc=made('MFCC')[0], vits=made('VITS')[0], power=SpecFrontend(CFGS['Basic'](to_db=False), 16000), stereo=made('Mel', channels=2)[0])
    for k,f in fs.items():
        ch = 2 if k=='stereo' else 1
        with warnings.catch_warnings(): warnings.simplefilter('ignore'); assert f.to_onnx(path/f'{k}.onnx', ch)==path/f'{k}.onnx'
        np.savez(path/f'{k}.npz', **{f'{b}_{n}':(bass if n==4000 else noise)(b,ch,n, seed=n).numpy() for n in LENGTHS for b in BATCHES})
    code = ("import sys,numpy as np,onnxruntime as o\nfor k in sys.argv[1:]:\n s=o.InferenceSession(k+'.onnx')\n z=np.load(k+'.npz')\n np.savez(k+'_out.npz',**{n:s.run(None,{'waveform':z[n]})[0] for n in z.files})\n"
            "assert not {'torch','specnorm_fastai','librosa'}&set(sys.modules)")
    r = subprocess.run([sys.executable,'-c',code,*fs], cwd=path, capture_output=True, text=True)
    assert r.returncode==0, r.stderr[-2000:]
    return path,fs,{k:(np.load(path/f'{k}.npz'),np.load(path/f'{k}_out.npz')) for k in fs}

@pytest.mark.parametrize('kind', ['mel','mel_norm','mfcc','vits','stereo'])
def test_onnx_of_log_mel_is_near_in_normalized_units(onnx, kind):
    f,(xs,ys) = onnx[1][kind],onnx[2][kind]
    for n in xs.files: close(ys[n], f(torch.from_numpy(xs[n])), 1e-3)

def test_onnx_of_power_is_near_the_largest_value(onnx):
    f,(xs,ys) = onnx[1]['power'],onnx[2]['power']
    for n in xs.files:
        want = f(torch.from_numpy(xs[n])); err = (torch.from_numpy(ys[n])-want).abs().amax((1,2,3)); assert (err<1e-5*want.amax((1,2,3))).all()

def test_onnx_tells_how_it_was_made(onnx):
    import onnx as o
    m = o.load(onnx[0]/'mel.onnx'); props = {p.key:p.value for p in m.metadata_props}; f = onnx[1]['mel']
    assert json.loads(props['sample_rate'])==16000 and json.loads(props['fingerprint'])==f.fingerprint and json.loads(props['rows'])==32 and props['units']=='std' and json.loads(props['least_samples'])>=f.least
    assert [i.name for i in m.graph.input]==['waveform'] and [i.name for i in m.graph.output]==['features']
    p = {p.key:p.value for p in o.load(onnx[0]/'power.onnx').metadata_props}; assert p['units']=='power'
    assert sorted(f.name for f in onnx[0].glob('*.onnx*'))==sorted(f'{k}.onnx' for k in onnx[1])  # nothing beside it

def test_onnx_dims_have_names_that_say_what_they_are(onnx):
    import onnx as o
    for k,f in onnx[1].items():
        g = o.load(onnx[0]/f'{k}.onnx').graph
        dims = {v.name:[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*g.input,*g.output,*g.value_info)}
        assert dims['waveform']==['batch',2 if k=='stereo' else 1,'time'] and dims['features'][0]=='batch' and dims['features'][2:]==[f.n_rows,'frame'], k
        assert not [d for v in dims.values() for d in v if isinstance(d, str) and re.search(r'\bs\d+', d)], k

def test_onnx_target_must_have_a_folder(tmp_path):
    for m in ('onnx','onnxscript'): pytest.importorskip(m)
    with pytest.raises(FileNotFoundError, match='no such folder'): made('Mel')[0].to_onnx(tmp_path/'none'/'f.onnx')

def test_onnx_packages_are_named_where_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ImportError, match='to_onnx needs onnx: pip install onnx onnxscript'): made('Mel')[0].to_onnx(tmp_path/'f.onnx')

# ---- from DataLoaders

def loaders(synthetic, block=None, item_tfms=None, batch_tfms=None):
    df = audio_table(synthetic)[:16]
    return DataBlock((block or AudioBlock,CategoryBlock), get_x=ColReader('path'), get_y=ColReader('category'), splitter=IndexSplitter(range(12,16)), item_tfms=item_tfms, batch_tfms=batch_tfms).dataloaders(df, bs=4, num_workers=0),df

def same(dls, df, f):
    "The valid batch, from the files on"
    raw = PadAudio()([AudioTensor.create(p) for p in df.path[12:16]]); close(f(torch.stack(raw)), dls.valid.one_batch()[0].plain(), 1e-4)  # items alone or in a batch, over the std

class Louder(Transform):
    def encodes(self, x:AudioTensor): return x*2
class Brighter(Transform):
    def encodes(self, x:AudioSpectrogram): return x+1
class Any_(Transform):
    def encodes(self, x): return x

FROM = dict(mel=lambda: dict(batch_tfms=[AudioNormalize(),transform('Mel'),SpecNormalize(axes='frequency')]), no_norm=lambda: dict(batch_tfms=[transform('Mel')]), no_stats_vits=lambda: dict(batch_tfms=[transform('VITS', on_clip='ignore')]), mfcc=lambda: dict(batch_tfms=[transform('MFCC'),SpecNormalize()]),
    item=lambda: dict(item_tfms=[transform('Mel')], batch_tfms=[SpecNormalize()]), item_wave=lambda: dict(item_tfms=[AudioNormalize()], batch_tfms=[transform('Basic'),SpecNormalize('frequency') if False else SpecNormalize(axes='frequency')]), no_resample=lambda: dict(block=AudioBlock(sample_rate=None), batch_tfms=[transform('Basic'),SpecNormalize()]),
    rate_in_settings=lambda: dict(block=AudioBlock(sample_rate=None), batch_tfms=[transform('Mel', sample_rate=16000)]), stereo_ok=lambda: dict(block=AudioBlock(force_mono=False), batch_tfms=[transform('Gammatone'),SpecNormalize()]))

@pytest.mark.parametrize('kind', FROM)
def test_front_end_of_dataloaders_makes_their_batches(synthetic, kind):
    kw = FROM[kind](); dls,df = loaders(synthetic, **kw); f = SpecFrontend.from_dls(dls); same(dls, df, f)
    assert f.sr==16000 and (f.mean is None)==('no' in kind and kind!='no_resample' or kind=='rate_in_settings')
    same(dls, df, SpecFrontend.from_dls(dls.valid)); assert f.mono==(kind!='stereo_ok')

def test_front_end_leaves_lengths_to_the_caller(synthetic):
    dls,df = loaders(synthetic, AudioBlock(crop_signal_to=500), batch_tfms=[transform('Mel'),SpecNormalize()]); f = SpecFrontend.from_dls(dls)
    raw = [ResizeSignal(500)(AudioTensor.create(p), split_idx=1) for p in df.path[12:16]]; close(f(torch.stack(raw)), dls.valid.one_batch()[0].plain(), 1e-4)

def test_unknown_transforms_are_named_or_skipped(synthetic):
    for t,where in ((Louder(),'item_tfms'),(Brighter(),'batch_tfms'),(Any_(),'batch_tfms')):
        kw = dict(batch_tfms=[transform('Mel'),SpecNormalize()]); kw[where] = [t]+kw.get(where, [])
        dls,_ = loaders(synthetic, **kw)
        with pytest.raises(ValueError, match=f'holds {type(t).__name__}'): SpecFrontend.from_dls(dls)
        for skip in (type(t).__name__,[type(t).__name__],t,(t,)) if where=='item_tfms' else (type(t).__name__,): assert SpecFrontend.from_dls(dls, skip=skip).n_rows==32

def test_augmentation_is_left_out(synthetic):
    class Aug(Transform):
        augments = True
        def encodes(self, x:AudioTensor): return x
    dls,df = loaders(synthetic, item_tfms=[Aug()], batch_tfms=[transform('Mel'),SpecNormalize()]); same(dls, df, SpecFrontend.from_dls(dls))

@pytest.mark.parametrize('kw,what', [(lambda: dict(item_tfms=[transform('Mel')], batch_tfms=[transform('Basic')]),'one spectrogram'), (lambda: dict(batch_tfms=[]),'no AudioToSpec'), (lambda: dict(block=AudioBlock(sample_rate=None), batch_tfms=[transform('Basic')]),'sample rate'),
    (lambda: dict(item_tfms=[transform('Mel')], batch_tfms=[AudioNormalize()]),'AudioNormalize comes behind AudioToSpec'), (lambda: dict(batch_tfms=[AudioNormalize(),RMSNormalize(),transform('Basic')]),'one normalization of waveforms')])
def test_pipelines_that_cannot_be_are_named(synthetic, kw, what):
    dls,_ = loaders(synthetic, **kw())
    with pytest.raises(ValueError, match=what): SpecFrontend.from_dls(dls)

@pytest.mark.parametrize('then', [[DynamicRangeCompression()],[Delta()],[DeltaGPU(5,'reflect')]], ids=lambda t: type(t[0]).__name__)
def test_what_stands_between_the_spectrogram_and_its_normalization_goes_along(synthetic, then):
    to_spec = transform('Mel', to_db=not isinstance(then[0], DynamicRangeCompression))
    dls,_ = loaders(synthetic, item_tfms=[AddNoise()], batch_tfms=[AudioNormalize(),to_spec,*then,SpecNormalize(axes='frequency'),MaskFreq()])
    f,x = SpecFrontend.from_dls(dls),noise(2,1,9000)
    close(f(x), dls.valid.after_batch(AudioTensor(x, sr=16000)).plain(), 1e-5)
    ln = torch.tensor([9000,6000])
    close(f(x, ln)[1,...,:int(f.n_frames(6000))], f(x[1:,:,:6000])[0], 1e-4)
    if isinstance(then[0], Delta):
        with pytest.raises(ValueError, match='DeltaGPU exports'): f.export()
    else: close(f.export().module()(x), f(x), 1e-5)
    if not isinstance(then[0], DynamicRangeCompression):
        with pytest.raises(ValueError, match='cannot stream: Delta looks ahead'): SpecFrontend(to_spec, 16000, then=then).stream()

def test_what_is_no_dataloaders_is_refused():
    for o in ([1],None,'dls',torch.zeros(3)):
        with pytest.raises(TypeError, match='dls: expected DataLoaders'): SpecFrontend.from_dls(o)

# ---- in pieces

def in_pieces(f, x, sizes):
    s,at,res = f.stream(),0,[]
    for n in sizes: res.append(s(x[...,at:at+n])); at += n
    if at<x.shape[-1]: res.append(s(x[...,at:]))
    return torch.cat([*res,s.finish()], -1)

@st.composite
def streams(draw):
    n_fft = draw(st.integers(8, 64)); hop = draw(st.integers(1, 2*n_fft)); win = draw(st.integers(2, n_fft))
    kw = dict(n_fft=n_fft, win_length=win, hop_length=hop, center=draw(st.booleans()), pad=draw(st.integers(0, 20)), pad_mode=draw(st.sampled_from(['reflect','constant','replicate'])))
    kind = draw(st.sampled_from(['Basic','power','VITS','Gammatone','MFCC']))
    if kind=='MFCC': cfg = AudioConfig.BasicMFCC(n_mfcc=3, log_mels=True, melkwargs=dict(n_mels=4, **kw))
    elif kind=='VITS': cfg = AudioConfig.VITS(n_mels=4, mirror='same' if hop<=n_fft and draw(st.booleans()) else draw(st.integers(0, 30)), on_clip='ignore', **kw)
    elif kind=='Gammatone': cfg = AudioConfig.Gammatone(n_filters=4, to_db=False, compression='log', **kw)
    else: cfg = AudioConfig.BasicSpectrogram(to_db=kind=='Basic', **kw)
    return cfg,draw(st.lists(st.sampled_from([0,1,2,7])|st.integers(0, 150), max_size=12)),draw(st.sampled_from([0,1,2,40,300])),draw(st.sampled_from([(1,1),(2,1),(2,2)]))

@given(s=streams())
@settings(max_examples=120)
def test_pieces_make_the_frames_of_the_whole(s):
    cfg,sizes,more,lead = s
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        f = SpecFrontend(cfg, 1000, (-3.,2.)); x = noise(*lead, f.least+more, sr=1000, seed=more).plain(); want = f(x); got = in_pieces(f, x, sizes)
    assert got.shape==want.shape and got.dtype==want.dtype
    close(got, want, 1e-4)  # sums in another order, in dB too

@pytest.mark.parametrize('kind', ['Basic','Mel','Voice','VITS','Gammatone','LinearBands'])
@pytest.mark.parametrize('size', [1,160,333,9000])
def test_configurations_stream(kind, size):
    f,_ = made(kind, None, 'frequency', 2); x = noise(2,2,2500 if size==1 else 9000).plain(); s = f.stream(); close(in_pieces(f, x, [size]*(x.shape[-1]//size)), f(x), 1e-4)
    first = s(x[...,:2400]); assert first.shape[-1]>0; close(first, f(x)[...,:first.shape[-1]], 1e-4)  # frames come as soon as they can

@given(data=st.data())
@settings(max_examples=20)
def test_a_stream_keeps_no_more_than_it_needs(data):
    n_fft,hop = data.draw(st.sampled_from([(64,16),(64,100),(33,33)])); s = SpecFrontend(AudioConfig.BasicSpectrogram(n_fft=n_fft, hop_length=hop), 1000).stream()
    for _ in range(30): s(torch.rand(1,1,data.draw(st.integers(0, 200)))-.5); assert s.tail.shape[-1]<=n_fft+1+200 and (s.buf is None or s.buf.shape[-1]<n_fft+hop)

def test_streams_of_one_front_end_do_not_meet():
    f,_ = made('VITS'); x,y = noise(1,1,5000).plain(),noise(1,1,5000, seed=1).plain(); a,b = f.stream(),f.stream()
    ra,rb = zip(*[(a(x[...,i:i+500]),b(y[...,i:i+500])) for i in range(0,5000,500)])
    close(torch.cat([*ra,a.finish()], -1), f(x)); close(torch.cat([*rb,b.finish()], -1), f(y)); assert isinstance(a, SpecStream)

def test_mono_half_and_audio_tensors_stream():
    f = SpecFrontend(CFGS['VITS'](), 16000, mono=True); x = noise(1,2,4000); close(in_pieces(f, x, [1000]*3), f(x))
    h = x.plain().half(); got = in_pieces(f, h, [700]*5); assert got.dtype==torch.float32; close(got, f(h))
    d = x.plain().double(); close(in_pieces(f, d, [700]*5), f(d), 1e-9)

@pytest.mark.parametrize('f,what', [(lambda: made('Mel','standard')[0],"waveform_norm='standard'"), (lambda: made('TopDb')[0],'top_db=30'), (lambda: made('MFCC')[0],'log_mels'), (lambda: SpecFrontend(CFGS['Basic'](pad_mode='circular'), 16000),'circular')])
def test_what_cannot_stream_says_why(f, what):
    with pytest.raises(ValueError, match='cannot stream: .*'+what): f().stream()

def test_stream_errors():
    f,_ = made('VITS'); s = f.stream(); s(torch.zeros(2,1,100))
    for bad,err,what in ((torch.zeros(3,1,100),ValueError,'batch and channels'),(torch.zeros(2,2,100),ValueError,'batch and channels'),(torch.zeros(2,100),ValueError,r'\(2, 100\)'),(torch.zeros(2,1,100).int(),TypeError,'int32'),(noise(2,1,100, sr=8000),ValueError,'made for 16000 Hz, got 8000'),([0.],TypeError,'list'),(torch.zeros(0,1,9),ValueError,'expected')):
        with pytest.raises(err, match='chunk: .*'+what): s(bad)
    with pytest.raises(ValueError, match=f'finish: expected at least {f.least} samples, got 100'): s.finish()
    with pytest.raises(ValueError, match='finish'): s.finish()
    with pytest.raises(ValueError, match='chunk: .*finished'): s(torch.zeros(2,1,100))
    with pytest.raises(ValueError, match='finish: .*got 0'): f.stream().finish()

def test_a_bad_piece_does_not_change_a_stream():
    f,_ = made('VITS'); s,x = f.stream(),noise(1,1,4000).plain(); a = s(x[...,:2000])
    with pytest.raises(ValueError): s(torch.zeros(2,1,100))
    close(torch.cat([a,s(x[...,2000:]),s.finish()], -1), f(x))

# ---- refused

@pytest.mark.parametrize('x,error,what', [(lambda: torch.zeros(4000),ValueError,r'x: .*\(4000,\)'), (lambda: torch.zeros(1,4000),ValueError,r'x: .*\(1, 4000\)'), (lambda: torch.zeros(1,1,1,4000),ValueError,'x: expected'), (lambda: torch.zeros(1,1,4000).short(),TypeError,'x: .*int16'),
    (lambda: torch.zeros(1,1,255),ValueError,'x: expected at least 256 samples, got 255'), (lambda: torch.zeros(1,1,0),ValueError,'x: expected at least'), (lambda: torch.zeros(0,1,4000),ValueError,r'x: .*\(0, 1, 4000\)'), (lambda: torch.zeros(1,0,4000),ValueError,'x: '), (lambda: [0.],TypeError,'x: .*list'), (lambda: np.zeros((1,1,4000)),TypeError,'x: .*ndarray'), (lambda: noise(1,1,4000, sr=8000),ValueError,'x: .*16000 Hz, got 8000 Hz'), (lambda: AudioTensor(torch.zeros(1,1,4000)),ValueError,'sample rate')])
def test_bad_samples_are_named(x, error, what):
    with pytest.raises(error, match=what): made('Mel')[0](x())

@pytest.mark.parametrize('ln', [[4000.,3000.],[4000],[4000,4001],[4000,255],[4000,-1],[[4000,4000]]])
def test_bad_lengths_are_named(ln):
    with pytest.raises((ValueError,TypeError), match='lengths: expected'): made('Mel')[0](noise(2,1,4000).plain(), torch.tensor(ln))

def test_a_waveform_is_not_normalized_twice():
    f,p = made('Mel','standard'); x = noise(2,1,4000)
    with pytest.raises(ValueError, match='normalizes waveforms itself'): f(AudioNormalize()(x))
    assert f.waveform_norm=='standard'

@pytest.mark.parametrize('kw,error,what', [(dict(sr=0),ValueError,'sr'), (dict(sr=16000.),ValueError,'sr'), (dict(sr=True),ValueError,'sr'), (dict(waveform_norm='minmax'),ValueError,'waveform_norm'), (dict(stats=SpecNormalize()),ValueError,'stats'), (dict(stats=(torch.zeros(7),torch.ones(7)), axes='frequency'),ValueError,'mean'),
    (dict(stats=(0.,0.)),ValueError,'std'), (dict(stats=(0.,1.), axes='rows'),ValueError,'axes')])
def test_bad_arguments_are_named(kw, error, what):
    with pytest.raises(error, match=what): SpecFrontend(transform('Mel'), **{'sr':16000, **kw})
    with pytest.raises(ValueError, match='made for 16000 Hz, got 8000'): SpecFrontend(transform('Mel', sample_rate=16000), 8000)

@pytest.mark.parametrize('o', [lambda x: x, nn.Conv1d(1, 1, 1), None, 'mel'])
def test_what_makes_no_spectrogram_is_named(o):
    with pytest.raises(TypeError, match='to_spec: expected'): SpecFrontend(o, 16000)

@pytest.mark.parametrize('stats', [3., (1.,), 'stats.json', (1.,2.,3.)])
def test_what_is_no_statistics_is_named(stats):
    with pytest.raises(TypeError, match='stats: expected'): SpecFrontend(transform('Mel'), 16000, stats)

def test_compiled_is_the_front_end():
    torch._dynamo.reset(); f,_ = made('VITS','standard','frequency'); c = torch.compile(f, fullgraph=True, backend='aot_eager')
    for n in (3000,4001): close(c(noise(2,1,n).plain()), f(noise(2,1,n)))

def test_the_range_is_told_as_by_the_transform():
    f = SpecFrontend(CFGS['VITS'](), 16000); x = noise(1,1,4000).plain()*5
    from specnorm_fastai import mel as M; M._asked[:] = None,set()
    with pytest.warns(UserWarning, match=r'y: expected samples in \[-1, 1\]'): f(x)
    with warnings.catch_warnings(): warnings.simplefilter('error'); SpecFrontend(CFGS['VITS'](), 16000, waveform_norm='standard')(x)

# ---- what breakers found

def test_a_data_block_of_files_and_functions_is_read(tmp_path):
    from specnorm_fastai.data import synthetic_audio
    path = synthetic_audio(tmp_path, n=16)
    def label(p): return p.stem.split('-')[-1]
    def quieter(x:AudioTensor): return x*.1
    block = DataBlock((AudioBlock(crop_signal_to=500),CategoryBlock), get_items=get_audio_files, get_y=label, splitter=IndexSplitter(range(12,16)), batch_tfms=[AudioNormalize(),transform('Mel'),SpecNormalize()])
    dls = block.dataloaders(path/'audio', bs=4, num_workers=0)
    f = SpecFrontend.from_dls(dls, resize=True)
    xb = dls.valid.one_batch()[0]
    for i in range(4): close(f(AudioTensor.create(dls.valid_ds.items[i])[None])[0], xb[i].plain(), 1e-4)
    with pytest.raises(ValueError, match='holds quieter'): SpecFrontend.from_dls(block.new(item_tfms=quieter, batch_tfms=block.batch_tfms).dataloaders(path/'audio', bs=4, num_workers=0), resize=False)
    SpecFrontend.from_dls(block.new(item_tfms=quieter, batch_tfms=block.batch_tfms).dataloaders(path/'audio', bs=4, num_workers=0), skip='quieter', resize=False)
    with pytest.warns(UserWarning, match='brings clips to 500 ms'): SpecFrontend.from_dls(dls)

def test_waveforms_normalized_too_early_are_refused(synthetic):
    dls,_ = loaders(synthetic, AudioBlock(force_mono=False), item_tfms=[AudioNormalize(),DownmixMono()], batch_tfms=[transform('Mel'),SpecNormalize()])
    with pytest.raises(ValueError, match='expected AudioNormalize behind'): SpecFrontend.from_dls(dls)

def test_what_is_normalized_already_and_padding_in_a_stream_are_refused():
    f,y = SpecFrontend(CFGS['VITS'](), 16000, stats=(-6.,2.)),noise(1,1,8000)
    with pytest.raises(ValueError, match='not at all'): f(AudioNormalize()(y))
    with pytest.raises(ValueError, match='normalized ones'): f.stream()(AudioNormalize()(y))
    with pytest.raises(ValueError, match='without padding'): f.stream()(AudioTensor(y.plain(), sr=16000, lengths=[5000]))
    loud = SpecFrontend(CFGS['VITS'](on_clip='raise'), 16000)
    with pytest.raises(ValueError, match=r'\[-1, 1\]'): loud.stream()(y.plain()*9)

@pytest.mark.parametrize('kind', ['Mel','VITS','Gammatone','Basic'])
@pytest.mark.parametrize('wave', [None,'standard'])
def test_clips_brought_to_a_length_are_as_after_resize_signal(kind, wave):
    f = SpecFrontend(transform(kind), 16000, stats=(-20.,10.), waveform_norm=wave, clip_samples=8000)
    whole = SpecFrontend(transform(kind), 16000, stats=(-20.,10.), waveform_norm=wave)
    crop,program = ResizeSignal(500, AudioPadType.Zeros_After),f.export().module()
    for n in (2000,7999,8000,8001,20001):
        x = noise(1,n, seed=n); y = crop(x, split_idx=1)
        want = whole(y.plain()[None], torch.tensor([int(y.real_lengths)]))
        got = f(x.plain()[None])
        assert got.shape==want.shape
        close(got, want, 1e-4); close(program(x.plain()[None]), got, 1e-5)  # two float32 FFTs
    xs = torch.stack(PadAudio()([noise(1,n, seed=n) for n in (2000,9000)])); got = f(xs)
    for i,n in enumerate((2000,9000)): close(got[i], f(noise(1,n, seed=n)[None])[0], 1e-4)

def test_a_state_of_stereo_is_not_that_of_mono():
    a,b = SpecFrontend(CFGS['Mel'](), 16000, stats=(0.,1.)),SpecFrontend(CFGS['Mel'](), 16000, stats=(0.,1.), mono=True)
    with pytest.raises(ValueError, match='mono'): b.load_state_dict(a.state_dict())

class _Louder:
    def __call__(self, x): return x*3

@pytest.mark.parametrize('f,what', [(functools.partial(lambda x: x*2),'holds'),(_Louder(),'holds'),(nn.Identity(),'holds')], ids=['partial','object','module'])
def test_what_cannot_be_told_is_named_not_dropped(synthetic, f, what):
    dls,_ = loaders(synthetic, item_tfms=[f], batch_tfms=[transform('Mel'),SpecNormalize()])
    with pytest.raises(ValueError, match=what): SpecFrontend.from_dls(dls)

def test_a_length_below_one_window_is_refused():
    with pytest.raises(ValueError, match='clip_samples: expected at least'): SpecFrontend(CFGS['VITS'](), 16000, clip_samples=10)

WAYS = [[ItemNormalize()],[ItemNormalize('band', 4, std=False, mask=None)],[MinMaxNormalize()],[DBReference(top_db=60.),SpecNormalize(-20.,10.)],[SlidingNormalize(20, center=False, min_window=5)],
        [FillFrames(-30.)],[SpecNormalize(-20.,10.),FillFrames(0.)],[CropTime(200)],[TfmResize((16,20))],[Delta(),ItemNormalize()]]
@pytest.mark.parametrize('ways', WAYS, ids=lambda w: '+'.join(type(t).__name__ for t in w))
def test_ways_behind_the_spectrogram_come_along(synthetic, ways):
    "Each way as the pipeline applies it, on whole and on padded batches"
    dls,_ = loaders(synthetic, batch_tfms=[RMSNormalize(),transform('Mel'),*ways])
    f,x = SpecFrontend.from_dls(dls, resize=True),noise(2,1,9000)*.1
    dls.valid.after_batch.split_idx = 1  # as where it is iterated
    for ln in (None,torch.tensor([9000,5000])):
        want = dls.valid.after_batch(AudioTensor(x.plain() if ln is None else x.plain()*(torch.arange(9000)<ln[:,None])[:,None], sr=16000, lengths=ln)).plain()
        close(f(x.plain() if ln is None else x.plain()*(torch.arange(9000)<ln[:,None])[:,None], ln), want, 1e-5)
    again = SpecFrontend.from_dls(dls, resize=True); again.load_state_dict(f.state_dict())
    with pytest.raises(ValueError, match='cannot stream'): f.stream()
    with pytest.raises(ValueError, match='no exported form'): f.export()

def test_pcen_and_statistics_behind_it_come_along(synthetic):
    dls,_ = loaders(synthetic, batch_tfms=[transform('Mel', to_db=False),PCEN(),SpecNormalize(axes='frequency')])
    f,x = SpecFrontend.from_dls(dls),noise(2,1,9000)*.1
    assert [type(t).__name__ for t in f.then]==['PCEN'] and f.mean is not None
    close(f(x), dls.valid.after_batch(AudioTensor(x.plain(), sr=16000)).plain(), 1e-5)

def test_a_front_end_that_was_pickled_before_it_knew_ways_still_answers():
    import pickle
    f = SpecFrontend(AudioConfig.BasicMelSpectrogram(n_mels=16, n_fft=512), 16000, (0.,1.)); x = noise(1,1,4000).plain()
    old = pickle.loads(pickle.dumps(f)); del old.__dict__['wave'],old.__dict__['typed']
    assert torch.equal(old(x), f(x))
