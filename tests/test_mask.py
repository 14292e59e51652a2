"Which frames are real: judged on the waveform, carried by the batch"
import numpy as np, pytest, torch, torch.nn.functional as F
from fastai.vision.all import DataBlock,CategoryBlock,ColReader,pd
from hypothesis import given,strategies as st
from specnorm_fastai.all import *

def _numpy_silent(x, n_fft, win, hop, center, pad, n=None, tol=1e-6):
    "Window by window, over the real samples only"
    real = x[:n] if n is not None else x
    range_,res = np.ptp(real) if len(real) else 0.,[]
    for k in range(n_frames(len(x), n_fft, hop, center, pad)):
        a = k*hop-pad-(n_fft//2 if center else 0)+(n_fft-win)//2
        w = real[max(a,0):max(a+win,0)]
        res.append(len(w)==0 or np.ptp(w)<=tol*range_)
    return np.array(res, dtype=bool)

@given(n=st.integers(40,300), n_fft=st.sampled_from([7,16,32,33]), win=st.integers(3,33), hop=st.integers(1,20), center=st.booleans(), pad=st.sampled_from([0,5,40]),
       cuts=st.lists(st.integers(0,300), min_size=2, max_size=6), real=st.integers(33,300), seed=st.integers(0,99))
def test_silent_frames_are_those_of_a_loop_over_windows(n, n_fft, win, hop, center, pad, cuts, real, seed):
    win = min(win, n_fft)
    x = np.random.default_rng(seed).normal(size=n)
    for a,b in zip(sorted(cuts)[::2], sorted(cuts)[1::2]): x[a:b] = .25  # any constant is silence
    real = min(real, n)
    got = silent_frames(torch.tensor(x), n_fft, win, hop, center, pad)
    assert (got.numpy()==_numpy_silent(x, n_fft, win, hop, center, pad)).all()
    got = silent_frames(torch.tensor(np.stack([x,x])), n_fft, win, hop, center, pad, lengths=torch.tensor([real,n]))
    for g,m in zip(got, (real,n)): assert (g.numpy()==_numpy_silent(x, n_fft, win, hop, center, pad, m)).all()

@given(gain=st.floats(1e-3,1e3), offset=st.floats(-5,5), seed=st.integers(0,20), dtype=st.sampled_from([torch.float32,torch.float64]))
def test_an_affine_change_of_the_waveform_moves_no_silence(gain, offset, seed, dtype):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(-3000, 3000, (3,4000), generator=g).to(dtype)/32768
    x[:,500:2000] = 0; x[0,3000:] = 1/32768; x[1,3100:3900:2] = 1/32768  # the last is one 16-bit step of noise: not silence
    want = silent_frames(x)
    # rounding after an offset far above the sound would hide it: keep the offset within 5 of a range of 0.2*gain
    assert torch.equal(silent_frames(x*gain+offset*gain*.2), want)
    assert want[:,4:9].all() and want[0,-3:].all() and not want[1,-2]

@pytest.mark.parametrize('cfg', [AudioConfig.BasicSpectrogram(), AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=100, n_mels=20), AudioConfig.Voice(),
    AudioConfig.BasicSpectrogram(n_fft=300, win_length=200, hop_length=70, pad=500, center=False), AudioConfig.BasicMFCC(melkwargs=dict(n_fft=512, n_mels=64))])
def test_the_mask_is_the_same_before_and_after_audio_normalize_and_any_padding(cfg):
    tfm = AudioToMFCC.from_cfg(cfg) if hasattr(cfg,'n_mfcc') else AudioToSpec.from_cfg(cfg)
    x = AudioTensor(torch.randn(2,12000)*.1, sr=16000); x[:,4000:9000] = 0; x[1,:2000] = 0
    a = tfm(x)
    assert a.silent.shape==a.shape[-1:] and 0<a.silent.sum()<len(a.silent)
    b = tfm(AudioNormalize()(x))
    assert torch.equal(a.silent, b.silent)
    for extra in (1,777,20000):
        batch = torch.stack(PadAudio()([x, AudioTensor(torch.randn(2,12000+extra), sr=16000)]))
        for norm in (False,True):
            sg = tfm(AudioNormalize()(batch) if norm else batch)
            ref,n = (b if norm else a),a.shape[-1]
            assert sg.lengths[0]==n and torch.equal(sg[0].silent[:n], ref.silent)
            assert torch.equal(sg.frame_mask('silence')[0,:n], ~ref.silent) and not sg.frame_mask('silence')[0,n:].any() and sg.frame_mask('padding')[0].sum()==n
            assert (sg[0].plain()[...,:n]-ref.plain()).abs().max()<=1e-4*ref.abs().max()
    assert a.frame_mask(None) is None
    with pytest.raises(ValueError, match="mask: expected one of"): a.frame_mask('real')

def test_a_frame_sounds_where_any_channel_does():
    x = torch.zeros(2,8000); x[0,2000:4000] = torch.randn(2000)
    sg = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram())(AudioTensor(x, sr=16000))
    assert torch.equal(sg.silent, silent_frames(x[0])) and not sg.silent.all()
    assert AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram())(AudioTensor(torch.zeros(1,8000), sr=16000)).silent.all()

def test_nan_and_inf_are_not_silence():
    for v in (float('nan'),float('inf')):
        x = torch.zeros(4000); x[2000] = v
        assert not silent_frames(x)[10]

def _sg(b=3, t=12):
    s = torch.zeros(b,t, dtype=torch.bool)
    for i in range(b): s[i,i:i+3] = True
    return AudioSpectrogram(torch.randn(b,2,5,t), silent=s, lengths=[t-i for i in range(b)], settings=dict(sr=1))

def test_silence_follows_its_frames_or_is_dropped():
    x = _sg()
    for y in (x*2, x.half(), x.clone(), x.detach(), x.clamp(0,1), x[:], x-x.mean((1,2),keepdim=True)): assert torch.equal(y.silent, x.silent)
    assert torch.equal(x[1].silent, x.silent[1]) and torch.equal(x[...,2:9].silent, x.silent[:,2:9]) and torch.equal(x[[2,0]].silent, x.silent[[2,0]])
    assert torch.equal(x[:,:,:3,::2].silent, x.silent[:,::2]) and torch.equal(torch.stack([x[0],x[2]]).silent, x.silent[[0,2]])
    assert torch.equal(torch.cat([x,x[:1]]).silent, x.silent[[0,1,2,0]]) and torch.equal(torch.stack(list(x)).silent, x.silent)
    for y in (x.flip(-1), x.transpose(0,1), x.roll(1,-1), F.pad(x,(1,0)), x.mean(-1), x[...,3], x.reshape(-1)): assert getattr(y,'silent',None) is None
    assert torch.equal((x+x[[0,0,0]]).silent, x.silent & x.silent[:1])
    import pickle,copy
    for y in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)): assert torch.equal(y.silent, x.silent)
    with pytest.raises(ValueError, match=r'silent: expected shape \(3, 12\)'): AudioSpectrogram(x.plain(), silent=torch.zeros(12))

def test_items_padded_as_spectrograms_keep_their_silence():
    a,b = _sg()[0],_sg(t=20)[1]
    p,q = PadAudio()([a,b])
    assert torch.equal(p.silent, F.pad(a.silent,(0,8))) and torch.equal(q.silent, b.silent)
    assert torch.equal(torch.stack([p,q]).frame_mask()[0], F.pad(~a.silent,(0,8)))

@pytest.mark.parametrize('workers', [0,2])
def test_the_mask_comes_through_loader_and_workers(synthetic, workers):
    df = pd.read_csv(synthetic/'meta'/'synthetic.csv')
    to_spec = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram())
    for item_tfms,batch_tfms in (([],[AudioNormalize(),to_spec]), ([AudioNormalize(),to_spec],[])):
        dls = DataBlock(blocks=(AudioBlock,CategoryBlock), get_x=ColReader('filename',pref=synthetic/'audio'), get_y=ColReader('category'),
                        splitter=CrossValidationSplitter(), item_tfms=item_tfms, batch_tfms=batch_tfms).dataloaders(df, bs=8, num_workers=workers)
        xb,_ = dls.valid.one_batch()
        for x in xb:
            alone = to_spec(AudioTensor.create(x.fn))
            assert torch.equal(x.silent[:x.lengths], alone.silent)
            assert x.settings['waveform_norm']=='standard' and alone.settings['waveform_norm'] is None

def test_waveform_normalization_is_remembered_through_what_follows():
    x = AudioNormalize()(AudioTensor(torch.randn(1,9000), sr=8000))
    for y in (x, Resample(16000)(x), DownmixMono()(x), ResizeSignal(500)(x, split_idx=1), ResizeSignal(5000)(x, split_idx=0), x*2, torch.stack([x,x]), AudioTensor(x)):
        assert y.waveform_norm=='standard'

def test_an_item_made_a_batch_of_one_keeps_all(synthetic):
    x = _sg()[1]
    for y in (x[None], x.unsqueeze(0), x[None,...]): assert torch.equal(y.silent, x.silent[None]) and y.lengths.tolist()==[11]
    a = AudioTensor.create(next((synthetic/'audio').iterdir()))
    assert a[None].fn==(a.fn,) and a[None].sr==a.sr

def test_a_transform_that_changes_the_frames_takes_no_wrong_silence_along():
    from fasttransform.transform import Transform
    class Crop(Transform):
        def encodes(self, x:AudioSpectrogram): return AudioSpectrogram(x.plain()[...,:5], settings=x.settings)
    y = Crop()(_sg())
    assert type(y) is AudioSpectrogram and y.silent is None and y.settings==dict(sr=1)
