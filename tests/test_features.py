"Spectrograms against fastaudio's own, batches against items, settings and what is refused"
import inspect,json,pickle,subprocess,sys,warnings
from dataclasses import asdict,fields,is_dataclass

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from fastai.data.all import CategoryBlock,ColReader,DataBlock,IndexSplitter
from fastai.vision.core import PILImage,TensorMask
from fastai.torch_core import TensorCategory,TensorImage

from specnorm_fastai.core import AudioSpectrogram,AudioTensor
from specnorm_fastai.data import AudioBlock,PadAudio
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec,SpectrogramTransformer
from specnorm_fastai.functional import n_frames

pytestmark = pytest.mark.filterwarnings('ignore:.*mel filters hold no frequency')  # 128 mel bands on 400 points, as in fastaudio

CFGS = ('BasicSpectrogram','BasicMelSpectrogram','Voice','BasicMFCC')
cfgs = pytest.mark.parametrize('cfg', CFGS)

def tfm(cfg, **kw): return (AudioToMFCC if cfg=='BasicMFCC' else AudioToSpec).from_cfg(getattr(AudioConfig, cfg)(**kw))

def noise(*shape, sr=16000, seed=0, **kw):
    return AudioTensor(torch.randn(*shape, generator=torch.Generator().manual_seed(seed))*.1, sr=sr, **kw)

# ---- fastaudio's own numbers

def clips(golden): return sorted({k.split('_')[0] for k in golden if k[0].isdigit()})

@cfgs
def test_golden_of_fastaudio_is_matched(golden, cfg):
    for i in clips(golden):
        y,want = tfm(cfg)(AudioTensor(golden[f'{i}_norm'], sr=16000)),golden[f'{i}_{cfg}']
        assert y.shape==want.shape and y.dtype==torch.float32
        err = np.abs(y.plain().numpy()-want)
        if cfg=='BasicMFCC': assert err.max()<1e-2; continue
        assert err[want>-20].max()<1e-2
        assert err[want>-80].max()<.1  # near the floor float32 FFTs differ, and a decibel magnifies that
        assert (y.plain().numpy()[want<=-80]<-75).all()

@cfgs
def test_golden_holds_in_a_padded_batch(golden, cfg):
    items = PadAudio()([(AudioTensor(golden[f'{i}_norm'], sr=16000),) for i in clips(golden)])
    xb = tfm(cfg)(torch.stack([o[0] for o in items]))
    for o,i in zip(range(len(xb)), clips(golden)):
        want = golden[f'{i}_{cfg}']; k = want.shape[-1]
        assert int(xb[o].lengths)==k
        err = np.abs(xb[o].plain().numpy()[...,:k]-want)
        assert err[want>-20].max()<1e-2 and err[want>-80].max()<.1

@cfgs
def test_settings_that_fastaudio_recorded_are_there(golden, cfg):
    want = json.loads(str(golden[f'settings_{cfg}']))
    y = tfm(cfg)(AudioTensor(golden['0_norm'], sr=16000))
    for k,v in want.items():
        if k=='window_fn': assert y.settings[k]=='hann_window'
        elif k in ('mel','to_db'): assert bool(y.settings[k])==bool(v)  # the strings "True" and "False" are both true
        else: assert y.settings[k]==v and (k=='norm' or getattr(y, k)==v)  # `norm` is a method of every tensor

def test_five_seconds_have_the_blogs_shape():
    x = noise(1,80000)
    assert [tuple(tfm(c)(x).shape) for c in CFGS]==[(1,201,401),(1,128,401),(1,128,626),(1,40,401)]

# ---- a batch is its items

GRID = [('BasicSpectrogram',{}), ('BasicSpectrogram',dict(n_fft=256,hop_length=100,win_length=200)),
    ('BasicSpectrogram',dict(n_fft=255,hop_length=64)),
    ('BasicSpectrogram',dict(center=False)), ('BasicSpectrogram',dict(pad=30)), ('BasicSpectrogram',dict(top_db=40.)),
    ('BasicSpectrogram',dict(to_db=False,power=1.)),
    ('BasicSpectrogram',dict(stype='magnitude',power=1.,normalized=True)),
    ('BasicSpectrogram',dict(pad_mode='constant')), ('BasicMelSpectrogram',{}),
    ('BasicMelSpectrogram',dict(n_mels=40,f_min=100.,f_max=4000.)),
    ('BasicMelSpectrogram',dict(mel_scale='slaney',norm='slaney',n_mels=40)), ('Voice',dict(n_fft=512)), ('BasicMFCC',{}),
    ('BasicMFCC',dict(n_mfcc=13,log_mels=True,melkwargs=dict(n_fft=512,hop_length=100,n_mels=40)))]

def _id(v): return v if isinstance(v, str) else '-'.join(f'{k}={x}' for k,x in v.items() if k!='melkwargs')

@pytest.mark.parametrize('cfg,kw', GRID, ids=_id)
@pytest.mark.parametrize('ch', [1,2])
def test_batch_equals_item_by_item(cfg, kw, ch):
    ns = [800,801,899,900,1000,1600]  # with and without remainder by the hops
    items = [noise(ch, n, seed=n) for n in ns]
    t = tfm(cfg, **kw)
    xb = torch.stack(PadAudio()(items))
    # what lies behind an end must not matter
    xb = AudioTensor(xb.plain()+9*(~xb.real_mask[:,None]), sr=16000, lengths=xb.lengths)
    yb = t(xb)
    m = t.mel if cfg=='BasicMFCC' else t.settings
    for y,x in zip([yb[i] for i in range(len(ns))], items):
        want = t(x); k = want.shape[-1]
        assert want.lengths is None and int(y.lengths)==k
        assert k==n_frames(x.nsamples, m['n_fft'], m['hop_length'], m['center'], m['pad'])
        assert y.settings==want.settings and y.freqs==want.freqs
        # float32: an FFT over more rows rounds otherwise, which decibels magnify in quiet cells; these are at -60 dB and above
        torch.testing.assert_close(y[...,:k].plain(), want.plain(), rtol=1e-3, atol=2e-2)

def test_top_db_of_an_item_does_not_see_its_batch():
    loud,quiet = noise(1,1600),noise(1,1600,seed=1)*1e-3
    t = tfm('BasicSpectrogram', top_db=30.)
    yb = t(torch.stack([loud,quiet]))
    for y in yb.plain(): assert y.max()-y.min()==pytest.approx(30, abs=1e-3)
    # a quiet clip padded: its floor stands 30 dB under itself
    assert torch.allclose(yb[1].plain(), t(quiet).plain(), atol=1e-3)

def test_stereo_channels_are_apart():
    x = noise(2,1600)
    t = tfm('BasicMelSpectrogram', n_mels=40)
    y = t(x)
    assert y.nchannels==2
    for c in range(2): torch.testing.assert_close(y.plain()[c:c+1], t(x[c:c+1]).plain(), rtol=1e-5, atol=1e-3)  # float32

def test_padding_is_the_floor_of_silence():
    xb = torch.stack(PadAudio()([noise(1,800),noise(1,4000)]))
    assert (tfm('BasicSpectrogram')(xb)[0].plain()[...,5:]==-100).all()
    assert (tfm('BasicSpectrogram', to_db=False)(xb)[0].plain()[...,5:]==0).all()

# ---- other types, names, knowledge

@cfgs
def test_what_is_no_audio_passes_untouched(cfg):
    t,img = tfm(cfg),PILImage.create(np.zeros((8,8,3), np.uint8))
    for o in (torch.randn(1,16000), TensorImage(torch.rand(3,8,8)), TensorMask(torch.ones(8,8)), TensorCategory(3), img, 'a', 1, None,
              noise(1,800).plain(), AudioSpectrogram.create(torch.randn(1,201,9))): assert t(o) is o
    x,y,m = t((noise(1,4000), TensorCategory(1), TensorMask(torch.ones(8,8))))
    assert isinstance(x, AudioSpectrogram) and y==1 and type(m) is TensorMask and (m==1).all()

@cfgs
def test_transform_and_result_pickle(cfg):
    t,x = tfm(cfg),noise(1,4000, fn='a.wav')
    y = t(x)
    u = pickle.loads(pickle.dumps(t))
    assert torch.equal(u(x), y) and u.settings==t.settings
    z = pickle.loads(pickle.dumps(y))
    assert torch.equal(z, y) and z.settings==y.settings and z.freqs==y.freqs and z.fn=='a.wav'

def test_rows_know_their_frequency():
    sr,t = 16000,torch.arange(16000)/16000
    for cfg,tol in (('BasicSpectrogram',40),('Voice',60)):  # half the distance of two rows at 2 kHz
        y = tfm(cfg)(AudioTensor(torch.sin(2*torch.pi*2000*t)[None], sr=sr))
        assert len(y.freqs)==y.height and list(y.freqs)==sorted(y.freqs)
        assert abs(y.freqs[int(y.plain()[0].mean(-1).argmax())]-2000)<=tol
    assert tfm('BasicMFCC')(noise(1,4000)).freqs is None

def test_duration_and_units_are_told():
    x = noise(1,16000)
    assert tfm('BasicSpectrogram')(x).duration==pytest.approx(1, abs=200/16000)
    assert [tfm('BasicSpectrogram', **k)(x).units for k in ({}, dict(to_db=False), dict(to_db=False,power=1.))]==['dB','power','magnitude']
    assert tfm('BasicMFCC')(x).units=='coefficient'

# ---- settings

STFT = dict(n_fft=512, win_length=400, hop_length=100, pad=2, window_fn=torch.hamming_window, power=1., normalized=True,
            wkwargs={'periodic':True}, center=False, pad_mode='constant', onesided=True)
MEL = dict(sample_rate=16000, f_min=20., f_max=7000., n_mels=40, norm='slaney', mel_scale='slaney')
ARGS = dict(BasicSpectrogram=dict(**STFT, stype='magnitude', top_db=60., to_db=True, mel=False),
            BasicMelSpectrogram=dict(**STFT, **MEL, stype='magnitude', top_db=60., to_db=True, mel=True),
            Voice=dict(**STFT, **MEL, stype='power', top_db=60., to_db=True, mel=True),
            BasicMFCC=dict(sample_rate=16000, n_mfcc=13, dct_type=2, norm='ortho', log_mels=True,
                           melkwargs=dict(n_fft=512, hop_length=100, n_mels=40)))

@cfgs
def test_config_takes_every_argument_of_fastaudio_and_pickles(cfg):
    cls = getattr(AudioConfig, cfg)
    assert is_dataclass(cls)
    c = cls(**ARGS[cfg])
    assert {k:getattr(c, k) for k in ARGS[cfg]}==ARGS[cfg]
    assert set(ARGS[cfg])<={f.name for f in fields(cls)}
    p = pickle.loads(pickle.dumps(c))
    assert type(p) is cls and p==c and p!=cls() and asdict(p)==asdict(c)
    y = tfm(cfg, **ARGS[cfg])(noise(1,4000))
    assert all(y.settings[k]==v for k,v in ARGS[cfg].items() if k not in ('window_fn','wkwargs'))
    with pytest.raises(TypeError): cls(colour=1)

@cfgs
def test_transform_can_be_made_from_a_dict(cfg):
    cls = AudioToMFCC if cfg=='BasicMFCC' else AudioToSpec
    x,c = noise(1,4000),getattr(AudioConfig, cfg)()
    assert torch.equal(cls.from_cfg(asdict(c))(x), cls.from_cfg(c)(x))

def test_one_config_does_not_change_another():
    a = AudioConfig.BasicSpectrogram(); a.n_fft = 512
    assert AudioConfig.BasicSpectrogram().n_fft==400
    t = AudioToSpec.from_cfg(a); a.n_fft = 64
    assert t.settings['n_fft']==512

def test_unknown_setting_warns_by_name():
    with pytest.warns(UserWarning, match='colour: ignored, no setting'): SpectrogramTransformer(mel=False)(colour=1)
    with pytest.warns(UserWarning, match='n_mels: ignored, no setting'): SpectrogramTransformer(mel=False)(n_mels=40)
    with pytest.warns(UserWarning, match='hop: ignored, no setting'): AudioToMFCC(melkwargs=dict(hop=100))
    with warnings.catch_warnings(): warnings.simplefilter('error'); [tfm(c) for c in CFGS]

def test_signature_lists_the_settings():
    assert {'n_fft','hop_length','top_db'}<=set(inspect.signature(SpectrogramTransformer(mel=False)).parameters)
    assert 'n_mels' in inspect.signature(SpectrogramTransformer(mel=True)).parameters

@pytest.mark.parametrize('kw,what', [(dict(n_fft=-1),'n_fft'),(dict(n_fft=400.5),'n_fft'),(dict(hop_length=-3),'hop_length'),
    (dict(win_length=500),'win_length'),(dict(stype='db'),'stype')])
def test_bad_setting_is_named(kw, what):
    with pytest.raises(ValueError, match=what): tfm('BasicSpectrogram', **kw)

@pytest.mark.parametrize('kw,what', [(dict(dct_type=3),'dct_type'),(dict(n_mfcc=200),'n_mfcc'),(dict(norm='slaney'),'norm')])
def test_bad_mfcc_setting_is_named(kw, what):
    with pytest.raises(ValueError, match=what): tfm('BasicMFCC', **kw)

def test_mel_refuses_a_two_sided_spectrum_and_a_foreign_config():
    with pytest.raises(ValueError, match='onesided'): tfm('BasicMelSpectrogram', onesided=False)
    with pytest.raises(ValueError, match='AudioToMFCC'): AudioToSpec.from_cfg(AudioConfig.BasicMFCC())

# ---- bad input

@pytest.mark.parametrize('cfg', ['BasicMelSpectrogram','Voice','BasicMFCC'])
def test_rate_that_differs_is_refused(cfg):
    with pytest.raises(ValueError, match='sample_rate: .* 44100 Hz, a.wav has 16000 Hz'):
        tfm(cfg, sample_rate=44100)(noise(1,4000, fn='a.wav'))
    assert tfm(cfg, sample_rate=16000)(noise(1,4000)).sample_rate==16000

@cfgs
def test_unknown_rate_is_refused(cfg):
    with pytest.raises(ValueError, match='does not know its sample rate'): tfm(cfg)(AudioTensor(torch.zeros(1,4000)))

@pytest.mark.filterwarnings('default:.*mel filters hold no frequency')
def test_f_max_above_half_the_rate_is_told():
    with pytest.warns(UserWarning, match=r'mel filters hold no frequency.*f_max=8000 is above 4000 Hz'): sg = tfm('Voice', n_mels=101)(noise(1,4000, sr=8000))
    assert sg.f_max==8000 and sg.height==101 and (sg.plain()[:,-1]==-100).all()  # as fastaudio does

@cfgs
@pytest.mark.parametrize('dtype', [torch.int16,torch.int64,torch.uint8])
def test_integer_audio_is_refused(cfg, dtype):
    with pytest.raises(TypeError, match='floating point.*int'): tfm(cfg)(AudioTensor(torch.ones(1,4000).to(dtype), sr=16000))

@cfgs
def test_audio_without_a_channel_is_refused(cfg):
    with pytest.raises(ValueError, match=r'\(\.\.\., channel, time\)'): tfm(cfg)(AudioTensor(torch.zeros(4000), sr=16000))

@cfgs
def test_clip_shorter_than_one_window_is_named(cfg):
    t,n = tfm(cfg),1024 if cfg=='Voice' else 400
    with pytest.raises(ValueError, match=f'short.wav is shorter than one window: {n-1} samples, n_fft is {n}'):
        t(noise(1,n-1, fn='short.wav'))
    with pytest.raises(ValueError, match='an item without a file name is shorter'): t(noise(1,10))
    xb = torch.stack(PadAudio()([noise(1,2000, fn='long.wav'), noise(1,9, fn='short.wav')]))
    with pytest.raises(ValueError, match='short.wav is shorter than one window: 9 samples'): t(xb)
    xb.fn = None
    with pytest.raises(ValueError, match='item 1 of the batch is shorter'): t(xb)
    assert t(noise(1,n)).shape[-1]==1+n//(128 if cfg=='Voice' else 200)

@pytest.mark.parametrize('where', ['item','batch'])
@pytest.mark.parametrize('workers', [0,2])
def test_short_clip_is_named_from_a_loader(tmp_path, where, workers, monkeypatch):
    monkeypatch.setattr('torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL', .2)  # workers end within a moment
    for i in range(8): sf.write(tmp_path/f'{i}.wav', np.zeros(100 if i==6 else 4000), 16000)
    df = pd.DataFrame(dict(filename=[f'{i}.wav' for i in range(8)], label=list('xyxyxyxy')))
    dls = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=tmp_path), get_y=ColReader('label'),
        splitter=IndexSplitter([4,5,6,7]), **{f'{where}_tfms':tfm('BasicSpectrogram')}).dataloaders(df, bs=2, num_workers=workers)
    with pytest.raises(ValueError) as e: list(dls.valid)
    assert f"{tmp_path/'6.wav'} is shorter than one window: 100 samples" in str(e.value)

@cfgs
def test_silence_is_finite(cfg):
    for x in (torch.zeros(1,4000), torch.full((1,4000), 1e-30)):
        assert torch.isfinite(tfm(cfg)(AudioTensor(x, sr=16000))).all()

@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16,torch.float64])
@cfgs
def test_other_precisions_are_near(cfg, dtype):
    x = noise(1,4000)
    y,want = tfm(cfg)(x.to(dtype)),tfm(cfg)(x.to(dtype).float())  # of the same rounded samples
    assert y.dtype==(torch.float64 if dtype==torch.float64 else torch.float32)
    torch.testing.assert_close(y.plain().float(), want.plain(), rtol=1e-3, atol=2e-2)

# ---- torchaudio

def torchaudio():
    try: return pytest.importorskip('torchaudio', exc_type=ImportError)
    except (RuntimeError,OSError) as e: pytest.skip(f'torchaudio does not import: {e}')  # built for another torch

@pytest.mark.parametrize('kw', [{}, dict(n_fft=512,hop_length=160,n_mels=40), dict(n_mels=40,norm='slaney',mel_scale='slaney')])
def test_mel_is_torchaudios(kw):
    T = torchaudio().transforms
    x = noise(1,8000)
    want = T.MelSpectrogram(16000, **{'n_fft':400,**kw})(x.plain())
    y = tfm('BasicMelSpectrogram', to_db=False, **kw)(x).plain()
    torch.testing.assert_close(y, want, rtol=1e-3, atol=1e-5*want.max().item())  # float32 on both sides, filters too
    loud = want>1e-6
    db = tfm('BasicMelSpectrogram', **kw)(x).plain()
    torch.testing.assert_close(db[loud], T.AmplitudeToDB('power')(want)[loud], rtol=0, atol=1e-2)

@pytest.mark.parametrize('kw', [{}, dict(n_mfcc=13,melkwargs=dict(n_fft=512,hop_length=160,n_mels=40)),
                                dict(n_mfcc=13,log_mels=True,melkwargs=dict(n_fft=512,n_mels=40))])
def test_mfcc_is_torchaudios(kw):
    T = torchaudio().transforms
    x = noise(1,8000)
    want = T.MFCC(16000, **kw)(x.plain())
    torch.testing.assert_close(tfm('BasicMFCC', **kw)(x).plain(), want, rtol=1e-3, atol=1e-2)

def test_package_needs_no_torchaudio():
    code = ("import sys, torch, specnorm_fastai.core, specnorm_fastai.functional, specnorm_fastai.features, specnorm_fastai.data\n"
            "print('torchaudio' in sys.modules)\n"
            "sys.modules['torchaudio'] = None\n"  # an import of it fails
            "x = specnorm_fastai.core.AudioTensor(torch.randn(1,16000), sr=16000)\n"
            "from specnorm_fastai.features import AudioConfig, AudioToSpec\n"
            "print(tuple(AudioToSpec.from_cfg(AudioConfig.Voice())(x).shape))")
    res = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=True)
    assert res.stdout.split('\n')[:2]==['False','(1, 128, 126)']
