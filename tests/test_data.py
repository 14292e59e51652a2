"Resampling, cropping, padding, splitting, and the block that puts them together"
import os
import pickle,random

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from hypothesis import given,settings,strategies as st
from fastai.data.all import CategoryBlock,ColReader,DataBlock,GrandparentSplitter,IndexSplitter,parent_label
from fasttransform.transform import Transform
from fastai.torch_core import TensorCategory,TensorImage

from specnorm_fastai.core import AudioSpectrogram,AudioTensor,get_audio_files
from specnorm_fastai.data import (AudioBlock,AudioGetter,AudioPadType,CrossValidationSplitter,DownmixMono,OpenAudio,PadAudio,
                                  PreprocessAudio,RemoveSilence,RemoveType,Resample,ResizeSignal,audio_item_tfms,preprocess_audio_folder,
                                  same_value,synthetic_audio)
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.transforms import AudioNormalize

def noise(*shape, sr=16000, seed=0, **kw):
    return AudioTensor(torch.randn(*shape, generator=torch.Generator().manual_seed(seed))*.1, sr=sr, **kw)

def tone(f, sr, secs=.5, ch=1):
    t = torch.arange(int(sr*secs), dtype=torch.float64)/sr
    return AudioTensor(torch.sin(2*torch.pi*f*t).float().repeat(ch,1), sr=sr)

def to_spec(cfg='BasicSpectrogram', **kw): return AudioToSpec.from_cfg(getattr(AudioConfig, cfg)(**kw))

RATES = (7999,8000,11025,16000,22050,44100,48000)
methods = pytest.mark.parametrize('method', ['soxr','polyphase'])

# ---- Resample, DownmixMono

@methods
@settings(max_examples=150)
@given(n=st.integers(1,3000), old=st.sampled_from(RATES), new=st.sampled_from(RATES), ch=st.integers(1,2))
def test_resample_returns_the_ceiling_of_samples(method, n, old, new, ch):
    y = Resample(new, method)(noise(ch, n, sr=old, fn='a.wav'))
    assert y.shape==(ch, -(-n*new//old)) and (y.sr, y.fn, y.dtype)==(new, 'a.wav', torch.float32) and torch.isfinite(y).all()

@methods
def test_resample_to_the_same_rate_is_the_same_audio(method):
    x = noise(2,1000)
    assert torch.equal(Resample(16000, method)(x), x)

@methods
@pytest.mark.parametrize('old,new', [(44100,16000),(48000,16000),(8000,16000),(22050,44100)])
def test_resampled_tone_is_the_tone(method, old, new):
    y = Resample(new, method)(tone(440, old))
    want = tone(440, new)
    inner = slice(new//20, -new//20)  # the filters ring at the ends
    assert (y[...,inner]-want[...,inner]).abs().max()<5e-3  # the ripple that polyphase's Kaiser filter has in its pass band
    if method=='soxr': assert (y[...,inner]-want[...,inner]).abs().max()<1e-4

def test_soxr_and_polyphase_agree_on_a_low_tone():
    x = tone(440, 44100, ch=2)*torch.tensor([[.5],[.25]])
    a,b = (Resample(16000, m)(x)[...,800:-800] for m in ('soxr','polyphase'))
    assert (a-b).abs().max()<2.5e-3  # as above, at half the level

@methods
def test_resample_removes_what_the_new_rate_cannot_hold(method):
    y = Resample(16000, method)(tone(11000, 44100))
    assert y[...,800:-800].abs().max()<2e-3  # -54 dB, the stop band of the weaker filter

@methods
def test_resample_of_a_batch_is_item_by_item_and_moves_lengths(method):
    items = [noise(2,n,sr=44100,seed=n) for n in (4410,8820,6001)]
    xb = torch.stack(PadAudio()(items))
    y = Resample(16000, method)(xb)
    assert y.lengths.tolist()==[1600,3200,2178] and y.sr==16000
    for o,x in zip([y[i] for i in range(3)], items):
        want = Resample(16000, method)(x); k = want.nsamples
        # a filter looks across an end, where alone it sees nothing and here the padding, both 0
        torch.testing.assert_close(o[...,:k].plain(), want.plain(), rtol=0, atol=1e-5)

def test_polyphase_of_the_file_is_fastaudios(golden, esc10):
    for i,f in enumerate(golden['files']):
        if f'{i}_r16k' not in golden: continue
        x = DownmixMono()(Resample(16000, 'polyphase')(AudioTensor.create(esc10/'audio'/str(f))))
        assert x.shape==golden[f'{i}_r16k'].shape
        np.testing.assert_allclose(x, golden[f'{i}_r16k'], rtol=0, atol=1e-4)  # the decoder of then rounded to 16 bits: steps of 3e-5
        np.testing.assert_allclose(AudioNormalize()(x), golden[f'{i}_norm'], rtol=0, atol=1e-4/golden[f'{i}_r16k'].std())  # that over std

def test_normalized_golden_is_fastaudios(golden):
    for k in golden:
        if not k.endswith('_r16k'): continue
        np.testing.assert_allclose(AudioNormalize()(AudioTensor(golden[k], sr=16000)), golden[k[:-4]+'norm'], rtol=0, atol=1e-4)

def test_resample_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="method: expected 'soxr' or 'polyphase', got 'fft'"): Resample(16000, 'fft')
    for sr in (0,-1,16000.5,None,'16k'):
        with pytest.raises(ValueError, match='sr_new: expected a whole number'): Resample(sr)
    with pytest.raises(ValueError, match='does not know its sample rate'): Resample(16000)(AudioTensor(torch.zeros(1,9)))

def test_downmix_is_the_mean_of_the_channels():
    x = noise(2,100, fn='a.wav')
    y = DownmixMono()(x)
    torch.testing.assert_close(y.plain(), (x.plain()[:1]+x.plain()[1:])/2)
    assert (y.sr, y.fn)==(16000,'a.wav')
    m = noise(1,100)
    assert torch.equal(DownmixMono()(m), m)
    xb = AudioTensor(torch.randn(3,2,9), sr=8000, lengths=[3,9,5])
    assert DownmixMono()(xb).shape==(3,1,9) and DownmixMono()(xb).lengths.tolist()==[3,9,5]

@pytest.mark.parametrize('t', [Resample(8000), DownmixMono(), ResizeSignal(100), RemoveSilence(), AudioNormalize()],
                         ids=lambda t: type(t).__name__)
def test_what_is_no_audio_passes_untouched(t):
    others = torch.randn(2,100),TensorImage(torch.rand(3,8,8)),TensorCategory(1),'a',3,AudioSpectrogram.create(torch.randn(1,4,9))
    for o in others: assert t(o) is o

@pytest.mark.parametrize('t', [Resample(8000), Resample(8000,'polyphase'), DownmixMono(), ResizeSignal(100,AudioPadType.Repeat), PadAudio(),
                               OpenAudio(), OpenAudio(['a.wav'], 'b', 'c'), RemoveSilence(RemoveType.All), AudioNormalize()],
                         ids=lambda t: type(t).__name__)
def test_transform_pickles(t):
    u = pickle.loads(pickle.dumps(t))
    x = noise(2,3000,sr=44100)
    assert u.name==t.name and (isinstance(t, PadAudio) or torch.equal(u(x, split_idx=1), t(x, split_idx=1)))

# ---- ResizeSignal

def ramp(n, sr=1000): return AudioTensor(torch.arange(1., n+1)[None], sr=sr, fn='a.wav')

@given(n=st.integers(1,60), to=st.integers(1,60), pad=st.sampled_from(list(AudioPadType)), train=st.booleans())
def test_resized_clip_has_the_duration_and_only_its_own_samples(n, to, pad, train):
    y = ResizeSignal(to, pad)(ramp(n), split_idx=0 if train else 1)
    assert y.shape==(1,to) and (y.sr, y.fn)==(1000,'a.wav')
    v,k = y.plain()[0],min(n, to)
    nz = v.nonzero()[:,0]
    if pad is AudioPadType.Repeat and n<to: assert v.tolist()==[1+i%n for i in range(to)] and int(y.lengths)==to
    else:
        assert len(nz)==k and (v[nz].diff()==1).all() and (nz.diff()==1).all()  # one piece, in order
        assert int(y.lengths)>=int(nz[-1])+1  # every real sample counts
        if n>=to or pad is AudioPadType.Zeros_After: assert int(y.lengths)==k and nz[0]==0

def test_crops_are_random_in_training_and_centred_at_validation():
    crop = ResizeSignal(4)
    starts = [int(crop(ramp(12), split_idx=0)[0,0]) for _ in range(400)]
    assert set(starts)==set(range(1,10))  # every place, 9 of them, the chance to miss one in 400 is 1e-19
    assert max(starts.count(s) for s in set(starts))<90
    for idx in (1,2): assert {int(crop(ramp(12), split_idx=idx)[0,0]) for _ in range(20)}=={5}

def test_zeros_are_put_at_random_in_training_and_evenly_at_validation():
    pad = ResizeSignal(12)
    at = lambda y: int(y.plain()[0].nonzero()[0,0])
    assert {at(pad(ramp(4), split_idx=0)) for _ in range(400)}==set(range(9))
    assert {at(pad(ramp(4), split_idx=1)) for _ in range(20)}=={4}

def test_random_crops_follow_the_seed():
    def crops(): random.seed(3); return [int(ResizeSignal(4)(ramp(50), split_idx=0)[0,0]) for _ in range(9)]
    assert crops()==crops()

def test_padding_is_cut_off_before_resizing():
    x = AudioTensor(torch.cat([torch.ones(1,5),torch.zeros(1,20)],1), sr=1000, lengths=5)
    y = ResizeSignal(10, AudioPadType.Zeros_After)(x, split_idx=1)
    assert y.plain()[0].tolist()==[1]*5+[0]*5 and int(y.lengths)==5
    assert ResizeSignal(4)(x, split_idx=1).plain().tolist()==[[1]*4]

def test_resize_refuses_what_it_cannot_do():
    for d in (0,-5): pytest.raises(ValueError, ResizeSignal, d).match('duration: expected milliseconds above 0')
    with pytest.raises(ValueError, match='pad_mode: expected one of'): ResizeSignal(5, 'zeros')
    with pytest.raises(ValueError, match='duration: 0.5 ms hold no sample at 1000 Hz'): ResizeSignal(.5)(ramp(9))
    with pytest.raises(ValueError, match='ResizeSignal: expected an item'): ResizeSignal(5)(torch.stack([ramp(9),ramp(9)]))

def test_clips_are_padded_on_both_sides_unless_a_block_does_it():
    assert ResizeSignal(5).pad_mode is AudioPadType.Zeros  # as in fastaudio
    for tfms in (audio_item_tfms(crop_signal_to=5),AudioBlock(crop_signal_to=5).item_tfms):
        assert tfms[-1].pad_mode is AudioPadType.Zeros_After

# ---- RemoveSilence

def with_gaps(*parts, sr=16000, ch=1, seed=0):
    "Noise and silence of so many samples in turn, silence first"
    g = torch.Generator().manual_seed(seed)
    return AudioTensor(torch.cat([torch.randn(ch, n, generator=g)*.1*(i%2)+1e-7 for i,n in enumerate(parts)], 1), sr=sr, fn='a.wav')

def test_silence_is_cut_as_librosa_finds_it():
    from librosa.effects import split
    x = with_gaps(9000,16000,12000,8000,10000,4000,5000)
    at = split(x.plain()[0].numpy(), top_db=20, hop_length=320)
    trim,every,piece = (RemoveSilence(r)(x) for r in RemoveType)
    assert torch.equal(trim.plain(), x.plain()[:,at[0,0]-320:at[-1,1]+320]) and torch.equal(every.plain(), piece.plain())
    assert len(at)==3 and torch.equal(every.plain(), torch.cat([x.plain()[:,a-320:b+320] for a,b in at], 1))
    for y in (trim,every): assert (y.sr, y.fn, y.lengths)==(16000,'a.wav',None)
    assert RemoveSilence(None)(x) is x and x.nsamples==64000

def test_near_pieces_stay_together_and_nothing_comes_twice():
    x = with_gaps(9000,16000,12000,16000,9000); x = AudioTensor(x.plain()*0+torch.arange(1.,x.nsamples+1)*(x.plain().abs()>1e-3), sr=16000)
    for pad in (0,20,100,300,500):
        y = RemoveSilence(RemoveType.All, 40, pad)(x).plain()[0]
        v = y[y!=0]
        assert (v.diff()>0).all() and v[0]==x[x!=0][0] and v[-1]==x[x!=0][-1]
    every,trim = (RemoveSilence(r, 40, 500)(x).plain() for r in (RemoveType.All,RemoveType.Trim))
    assert torch.equal(every, trim)  # the gap is shorter than a second

@given(parts=st.lists(st.integers(1500,20000), min_size=1, max_size=7), pads=st.lists(st.integers(0,1500), min_size=2, max_size=4),
       threshold=st.integers(10,60), sr=st.sampled_from([40,8000,16000,44100]), kind=st.sampled_from(RemoveType))
@settings(max_examples=60, deadline=None)
def test_more_padding_never_keeps_less(parts, pads, threshold, sr, kind):
    x = with_gaps(*parts, sr=sr)
    kept = [RemoveSilence(kind, threshold, p)(x).plain().double() for p in sorted(pads)]
    for a,b in zip(kept, kept[1:]): assert a.shape<=b.shape and a.square().sum()<=b.square().sum()*(1+1e-12)
    total = x.plain().double().square().sum()
    assert all(y.square().sum()>=.999*total for y in kept)  # all bursts are of one level, far above any threshold

@pytest.mark.parametrize('pad_ms', [0,.05,20,100,500,900])
def test_bursts_are_kept_whatever_the_padding(pad_ms):
    x = with_gaps(11000,1000,19000,3000,30000)  # 4 s; windows 500 ms apart passed over the first
    for kind in RemoveType: assert RemoveSilence(kind, pad_ms=pad_ms)(x).plain().square().sum()>=.999*x.plain().square().sum()

def test_channels_are_judged_together():
    a,b = with_gaps(8000,8000,16000),with_gaps(16000,8000,8000)
    both = RemoveSilence()(AudioTensor(torch.cat([a.plain(),b.plain()]), sr=16000))
    assert both.nchannels==2 and 15000<both.nsamples<21000 and RemoveSilence()(a).nsamples<12000

@pytest.mark.parametrize('x', [torch.zeros(1,9000), torch.full((2,9000), .5), torch.randn(1,9000), torch.randn(1,100),
                               torch.zeros(1,1), torch.zeros(2,0)], ids=['silent','constant','loud','short','one','none'])
@pytest.mark.parametrize('kind', RemoveType)
def test_what_has_no_silence_around_it_is_left_whole(x, kind):
    assert torch.equal(RemoveSilence(kind)(AudioTensor(x, sr=16000)).plain(), x)

def test_items_of_a_batch_are_cut_by_themselves():
    items = [with_gaps(6000,9000,5000), with_gaps(2000,4000,3000,4000,2000,seed=1), AudioTensor(torch.zeros(1,3000), sr=16000)]
    xb = torch.stack(PadAudio()(items)); was = xb.clone()
    for kind in RemoveType:
        y,want = RemoveSilence(kind)(xb),[RemoveSilence(kind)(o) for o in items]
        assert y.lengths.tolist()==[o.nsamples for o in want] and y.nsamples==max(y.lengths) and y.fn==xb.fn
        for i,o in enumerate(want): assert torch.equal(y.plain()[i,:,:o.nsamples], o.plain()) and (y.plain()[i,:,o.nsamples:]==0).all()
    assert torch.equal(xb, was) and torch.equal(RemoveSilence()(xb[0]).plain(), RemoveSilence()(items[0]).plain())

@pytest.mark.parametrize('dtype', [torch.float16,torch.float64])
def test_removing_silence_keeps_the_dtype(dtype):
    x = with_gaps(6000,9000,5000).to(dtype); y = RemoveSilence()(x)
    assert y.dtype==dtype and y.nsamples<20000

def test_remove_silence_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="remove_type: expected None or one of .*got 'trim'"): RemoveSilence('trim')
    with pytest.raises(ValueError, match='threshold: expected a number of at least 0'): RemoveSilence(threshold=-3)
    with pytest.raises(ValueError, match='pad_ms: expected'): RemoveSilence(pad_ms=None)
    with pytest.raises(ValueError, match='does not know its sample rate'): RemoveSilence()(AudioTensor(torch.zeros(1,9)))

# ---- PadAudio

def test_padding_brings_items_to_one_length_and_remembers_their_own():
    items = [(noise(1,n,seed=n,fn=f'{n}.wav'), TensorCategory(i), f'row {i}') for i,n in enumerate((5,9,7))]
    out = PadAudio()(items)
    assert [o[0].shape for o in out]==[(1,9)]*3 and [int(o[0].lengths) for o in out]==[5,9,7]
    for o,(x,y,r) in zip(out, items):
        n = x.shape[-1]
        assert torch.equal(o[0][...,:n], x) and (o[0].plain()[...,n:]==0).all()
        assert (o[0].sr, o[0].fn, o[2])==(16000, x.fn, r) and o[1] is y
        assert x.shape[-1]==n and x.lengths is None  # the items themselves are left alone
    assert [type(o) for o in out]==[tuple]*3
    assert PadAudio()([])==[]
    assert [int(o.lengths) for o in PadAudio()([o[0] for o in items])]==[5,9,7]

SILENCE = dict(power=(dict(to_db=False),0.), magnitude=(dict(to_db=False,power=1.),0.),
               magnitude_dB=(dict(stype='magnitude',power=1.),-200.))

@pytest.mark.parametrize('cfg', ['BasicSpectrogram','Voice',*SILENCE])
def test_spectrograms_are_padded_with_silence(cfg):
    kw,silence = SILENCE.get(cfg, ({},-100.))
    t = to_spec('BasicSpectrogram' if cfg in SILENCE else cfg, **kw)
    items = [(t(noise(1,n,seed=n)), i) for i,n in enumerate((2000,3999,2500))]
    out = PadAudio()(items)
    hop = 128 if cfg=='Voice' else 200
    want = [1+n//hop for n in (2000,3999,2500)]
    assert [int(o[0].lengths) for o in out]==want
    xb = torch.stack([o[0] for o in out])
    assert xb.lengths.tolist()==want and xb.settings==items[0][0].settings and xb.freqs==items[0][0].freqs
    for o,(x,_),n in zip(out, items, want):
        assert torch.equal(o[0][...,:n], x)
        torch.testing.assert_close(o[0].plain()[...,n:], torch.full_like(o[0].plain()[...,n:], silence))
    silent = t(AudioTensor(torch.zeros(1,2000), sr=16000)).plain()  # silence is what the transform makes of zeros
    torch.testing.assert_close(silent, torch.full_like(silent, silence))

def test_padding_respects_the_floor_of_top_db():
    t = to_spec(top_db=30.)
    x = t(noise(1,2000))
    out = PadAudio()([(x,),(t(noise(1,4000)),)])
    torch.testing.assert_close(out[0][0].plain()[...,11:], torch.full((1,201,10), x.max().item()-30))

@pytest.mark.filterwarnings('ignore:.*mel filters hold no frequency')
def test_coefficients_can_be_padded():
    t = AudioToMFCC.from_cfg(AudioConfig.BasicMFCC())
    out = PadAudio()([t(noise(1,2000)), t(noise(1,4000))])
    assert [o.shape for o in out]==[(1,40,21)]*2 and [int(o.lengths) for o in out]==[11,21] and torch.isfinite(out[0]).all()

def test_silence_is_that_of_each_item():
    from specnorm_fastai.data import _silence
    xb = torch.stack([to_spec(top_db=30.)(noise(1,2000,seed=i)*10**i) for i in range(3)])
    for s,x in zip(_silence(xb), xb): assert torch.equal(s, _silence(x)) and s.shape==(1,201,1) and torch.allclose(s, x.plain().max()-30)
    mf = torch.stack(PadAudio()([AudioToMFCC(n_mfcc=4, melkwargs=dict(n_mels=8))(noise(1,n)) for n in (4000,2000)]))
    for s,x in zip(_silence(mf), mf): assert torch.equal(s[...,0], x.plain()[...,int(x.lengths)-1])  # unknown: the last real frame

def test_stereo_beside_mono_is_refused_by_name():
    for t in (lambda x:x, to_spec()):
        items = [(t(noise(1,900,fn='mono.wav')),),(t(noise(2,900,fn='stereo.wav')),)]
        with pytest.raises(ValueError, match=r'same channels: .* in mono.wav, .* in stereo.wav'): PadAudio()(items)

# ---- AudioBlock

def table(path): return pd.read_csv(path/'meta'/'synthetic.csv')
def block(path, x=AudioBlock, **kw):
    kw = {'splitter':CrossValidationSplitter(), **kw}
    return DataBlock(blocks=(x,CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'), **kw)

BLOCKS = {'class':lambda:AudioBlock, 'instance':lambda:AudioBlock(), 'arguments':lambda:AudioBlock(None, 16000, True, None)}

@pytest.mark.parametrize('make', BLOCKS.values(), ids=BLOCKS)
def test_block_works_as_class_and_instance(synthetic, make):
    dls = block(synthetic, make()).dataloaders(table(synthetic), bs=4, num_workers=0)
    xb,yb = dls.train.one_batch()
    assert isinstance(xb, AudioTensor) and xb.shape[:2]==(4,1) and xb.sr==16000 and len(dls.train_ds)==64 and len(dls.valid_ds)==16
    for i in range(4):
        want = AudioTensor.create(xb.fn[i])
        assert torch.equal(xb[i][...,:int(xb[i].lengths)], want) and dls.vocab[yb[i]]==xb.fn[i].split('-')[-1][:-4]

def test_block_resamples_mixes_and_crops(tmp_path):
    noise(2,22050,sr=44100).save(tmp_path/'a.wav'); noise(2,4000,sr=8000).save(tmp_path/'b.wav')
    files = [tmp_path/'a.wav',tmp_path/'b.wav']*2
    def one(**k):
        return DataBlock(blocks=AudioBlock(**k), splitter=IndexSplitter([2,3])).dataloaders(files, bs=2, num_workers=0).valid.one_batch()[0]
    for kw,shape,sr,length in [({},(2,1,8000),16000,8000), (dict(sample_rate=8000),(2,1,4000),8000,4000),
            (dict(force_mono=False),(2,2,8000),16000,8000), (dict(crop_signal_to=250),(2,1,4000),16000,4000),
            (dict(crop_signal_to=1000),(2,1,16000),16000,8000)]:
        x = one(**kw)
        assert (tuple(x.shape), x.sr, x.lengths.tolist())==(shape, sr, [length]*2)
    names = lambda *a: [type(t).__name__ for t in audio_item_tfms(*a)]
    assert names(None, False, None)==[] and names(8000, True, 5)==['Resample','DownmixMono','ResizeSignal']

def test_block_reads_from_its_cache_folder(tmp_path):
    (tmp_path/'cache').mkdir()
    for d,v in ((tmp_path,.1),(tmp_path/'cache',.5)): AudioTensor(torch.full((1,800),v), sr=16000).save(d/'a.wav')
    dblock = DataBlock(blocks=AudioBlock(cache_folder=tmp_path/'cache'), splitter=IndexSplitter([1]))
    dls = dblock.dataloaders([tmp_path/'a.wav']*2, bs=1, num_workers=0)
    assert (dls.valid.one_batch()[0]==.5).all()

def test_numbers_open_the_files_of_a_list(tmp_path):
    for i in range(3): noise(1,500+i).save(tmp_path/f'{i}.wav')
    files = get_audio_files(tmp_path); oa = OpenAudio(files)
    assert [oa(i).nsamples for i in (0,np.int64(1),2)]==[500,501,502] and oa.decode(1)==files[1] and oa(files[2]).nsamples==502
    from fasttransform.transform import Pipeline
    assert Pipeline([oa, to_spec()])(2).fn==str(files[2])
    with pytest.raises(ValueError, match='items: expected the paths that numbers stand for, .* got None and the number 3'): OpenAudio()(3)

def test_getter_looks_below_its_folder(tmp_path):
    for d in ('a/x','a/y','b'): (tmp_path/d).mkdir(parents=True); noise(1,9).save(tmp_path/d/'1.wav')
    rel = lambda g: [str(f.relative_to(tmp_path)) for f in g(tmp_path)]
    assert rel(AudioGetter())==['a/x/1.wav','a/y/1.wav','b/1.wav'] and rel(AudioGetter('a'))==['a/x/1.wav','a/y/1.wav']
    assert rel(AudioGetter('a', folders=['y']))==['a/y/1.wav']
    assert rel(AudioGetter('b', recurse=False))==['b/1.wav'] and rel(AudioGetter('a', recurse=False))==[]

@pytest.fixture
def folder(tmp_path):
    "Files of equal name in two folders, of three formats, stereo at 22 kHz"
    for d in ('in/a','in/b'): (tmp_path/d).mkdir(parents=True)
    for i,n in enumerate(('a/1.wav','b/1.wav','a/2.flac','b/3.ogg')): noise(2,22050+441*i,sr=22050,seed=i).save(tmp_path/'in'/n)
    return tmp_path/'in'

@pytest.mark.parametrize('workers', [0,2])
def test_processed_files_are_what_the_block_makes(folder, workers):
    out = preprocess_audio_folder(folder, n_workers=workers, progress=False)
    assert out==folder.parent/'in_cached'
    assert sorted(str(f.relative_to(out)) for f in get_audio_files(out))==['a/1.wav','a/2.flac.wav','b/1.wav','b/3.ogg.wav']
    pp = PreprocessAudio()
    for f in get_audio_files(folder):
        r = f.relative_to(folder); to = out/r if f.suffix=='.wav' else out/r.with_name(r.name+'.wav')
        i = sf.info(str(to))
        assert torch.equal(AudioTensor.create(to), pp(f)) and (i.subtype, i.samplerate, i.channels)==('FLOAT',16000,1)

@pytest.mark.parametrize('kw', [{}, dict(crop_signal_to=500), dict(crop_signal_to=2000), dict(sample_rate=8000, force_mono=False),
                                dict(sample_rate=None)])
def test_block_of_a_folder_reads_what_it_would_have_made(folder, kw):
    def one(block):
        db = DataBlock(blocks=block, get_items=AudioGetter(), splitter=IndexSplitter([1,2,3]))
        return db.dataloaders(folder, bs=3, num_workers=0).valid.one_batch()[0]
    a,b = one(AudioBlock.from_folder(folder, progress=False, **kw)),one(AudioBlock(**kw))
    assert torch.equal(a, b) and a.lengths.tolist()==b.lengths.tolist() and a.sr==b.sr and all('in_cached' in f for f in a.fn)

def test_files_are_processed_once_and_again_where_they_changed(folder):
    import os
    out = preprocess_audio_folder(folder, progress=False)
    when = lambda: {str(f.relative_to(out)):f.stat().st_mtime_ns for f in get_audio_files(out)}
    first = when(); preprocess_audio_folder(folder, progress=False); assert when()==first
    noise(1,999,sr=16000).save(folder/'a'/'1.wav'); os.utime(folder/'a'/'1.wav', ns=(first['a/1.wav']+10**9,)*2)
    (out/'b'/'1.wav').unlink()
    preprocess_audio_folder(folder, progress=False)
    assert [k for k,v in when().items() if v!=first[k]]==['a/1.wav','b/1.wav'] and AudioTensor.create(out/'a'/'1.wav').nsamples==999
    with pytest.raises(ValueError, match="output_dir: .* holds audio processed with {'sample_rate': 16000.*asked .* {'sample_rate': 8000"):
        preprocess_audio_folder(folder, sample_rate=8000, progress=False)
    assert len(get_audio_files(preprocess_audio_folder(folder, folders=['b'], output_dir=folder/'out', progress=False)))==2
    assert len(get_audio_files(preprocess_audio_folder(folder, output_dir=folder/'out', progress=False)))==4  # its own output is no input

@pytest.mark.parametrize('workers', [0,2])
def test_all_files_that_cannot_be_processed_are_named(folder, workers):
    (folder/'a'/'bad.wav').write_bytes(b'no audio'); (folder/'b'/'empty.flac').write_bytes(b'')
    with pytest.raises(ValueError, match=r'2 of 6 audio files cannot be used:(?s:.*)bad.wav(?s:.*)empty.flac'):
        preprocess_audio_folder(folder, n_workers=workers, progress=False)
    out = folder.parent/'in_cached'
    assert len(get_audio_files(out))==4 and not list(out.rglob('.specnorm-*'))  # the others are there, and nothing in pieces

def test_preprocessing_refuses_what_it_cannot_do(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='path: no such folder'): preprocess_audio_folder(tmp_path/'gone')
    (tmp_path/'none').mkdir()
    with pytest.raises(ValueError, match='path: no audio file'): preprocess_audio_folder(tmp_path/'none')
    assert not (tmp_path/'none_cached').exists()
    with pytest.raises(ValueError, match='output_dir: expected another folder'): preprocess_audio_folder(folder, output_dir=folder)
    (tmp_path/'mine'/'a').mkdir(parents=True); mine = noise(1,9).save(tmp_path/'mine'/'a'/'1.wav')
    with pytest.raises(ValueError, match=r'output_dir: .*mine/a/1.wav is there, but was not made here'):
        preprocess_audio_folder(folder, output_dir=tmp_path/'mine')
    assert AudioTensor.create(mine).nsamples==9
    noise(1,9).save(folder/'b'/'3.ogg.wav')
    with pytest.raises(ValueError, match=r'3.ogg and .*3.ogg.wav would both be stored as'): preprocess_audio_folder(folder)

def test_links_and_relative_paths_are_found_in_the_cache(folder, monkeypatch):
    (folder/'a'/'link.wav').symlink_to(noise(1,70).save(folder.parent/'far.wav'))
    (folder.parent/'way').symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    oa = AudioBlock.from_folder('in', sample_rate=np.int64(16000), progress=False).type_tfms[-1]
    monkeypatch.chdir('/')
    out = folder.parent/'in_cached'
    assert oa(folder/'a'/'link.wav').fn==str(out/'a'/'link.wav') and oa(folder.parent/'way'/'a'/'1.wav').fn==str(out/'a'/'1.wav')

def test_a_cached_file_is_found_by_its_place_or_named(folder):
    out = preprocess_audio_folder(folder, progress=False); oa = OpenAudio(cache_folder=out, root=folder)
    assert oa(folder/'b'/'1.wav').fn==str(out/'b'/'1.wav') and oa(folder/'b'/'3.ogg').fn==str(out/'b'/'3.ogg.wav')
    other = noise(1,50).save(folder.parent/'new.wav')
    assert oa(other).fn==str(other)  # from elsewhere: read itself
    (out/'b'/'3.ogg.wav').unlink()
    with pytest.raises(FileNotFoundError, match=r'no such cached file: .*in_cached/b/3.ogg.wav, made of .*in/b/3.ogg'):
        oa(folder/'b'/'3.ogg')

def batches(dl): return [b[0].clone() for b in dl]

@pytest.mark.parametrize('workers', [0,2])
def test_validation_is_repeatable_and_training_is_not(synthetic, workers):
    dls = block(synthetic, AudioBlock(crop_signal_to=300)).dataloaders(table(synthetic), bs=8, num_workers=workers)
    assert all(torch.equal(a,b) for a,b in zip(batches(dls.valid), batches(dls.valid), strict=True))
    crop = lambda dl: {f:x for b in dl for f,x in zip(b[0].fn, b[0].plain())}
    a,b = crop(dls.train),crop(dls.train)
    assert set(a)==set(b) and sum(not torch.equal(a[f],b[f]) for f in a)>len(a)/2  # by chance a few crops are equal
    for f,x in crop(dls.valid).items():
        w = AudioTensor.create(f); at = (w.nsamples-4800+1)//2
        assert torch.equal(x, w.plain()[...,at:at+4800])

@pytest.mark.parametrize('workers', [0,2])
def test_spectrograms_of_items_are_padded_with_labels_beside(synthetic, workers):
    df = table(synthetic)
    dls = block(synthetic, item_tfms=to_spec()).dataloaders(df, bs=8, num_workers=workers)
    n_of = {str(synthetic/'audio'/f):sf.info(str(synthetic/'audio'/f)).frames for f in df.filename}
    for xb,yb in dls.valid:
        want = [1+n_of[f]//200 for f in xb.fn]
        assert isinstance(xb, AudioSpectrogram) and xb.lengths.tolist()==want and xb.width==max(want) and yb.shape==(8,)
        for i,n in enumerate(want): assert (xb.plain()[i,...,n:]==-100).all()

def test_item_and_batch_spectrograms_are_equal(synthetic):
    a,b = (block(synthetic, **{k:to_spec('Voice')}).dataloaders(table(synthetic), bs=8, num_workers=0).valid.one_batch()[0]
           for k in ('item_tfms','batch_tfms'))
    assert a.lengths.tolist()==b.lengths.tolist() and a.fn==b.fn
    torch.testing.assert_close(a.plain(), b.plain(), rtol=1e-3, atol=2e-2)  # float32, in dB

KIND = dict(path=lambda r,f:f, string=lambda r,f:str(f), row=lambda r,f:r, audio=lambda r,f:AudioTensor.create(f))

@pytest.mark.parametrize('kind', KIND)
def test_test_dl_of_a_table_takes_whatever_can_be_predicted_on(synthetic, kind):
    df = table(synthetic)
    dls = block(synthetic, batch_tfms=to_spec()).dataloaders(df, bs=8, num_workers=0)
    xb = dls.valid.one_batch()[0]
    rows = dls.valid_ds.items.iloc[:8]
    items = [KIND[kind](r, synthetic/'audio'/r.filename) for _,r in rows.iterrows()]
    dl = dls.test_dl(pd.DataFrame(items) if kind=='row' else items)
    yb, = dl.one_batch()
    assert torch.equal(yb, xb) and yb.lengths.tolist()==xb.lengths.tolist() and yb.settings==xb.settings

@pytest.mark.parametrize('kind', ['path','string','audio'])
def test_test_dl_of_files_takes_whatever_can_be_predicted_on(synthetic, kind):
    files = get_audio_files(synthetic)
    dls = DataBlock(blocks=(AudioBlock,CategoryBlock), get_y=lambda f: f.stem.split('-')[-1], splitter=IndexSplitter(range(8)),
                    item_tfms=ResizeSignal(400)).dataloaders(files, bs=8, num_workers=0)
    yb, = dls.test_dl([KIND[kind](None, f) for f in files[:8]]).one_batch()
    assert torch.equal(yb, dls.valid.one_batch()[0]) and yb.shape[-1]==6400  # the centred crop

def test_one_row_can_be_predicted_on(synthetic):
    df = table(synthetic)
    dls = block(synthetic).dataloaders(df, bs=8, num_workers=0)
    x, = dls.test_dl([dls.valid_ds.items.iloc[0]]).one_batch()
    assert torch.equal(x[0], AudioTensor.create(synthetic/'audio'/dls.valid_ds.items.filename.iloc[0]))

def test_csv_naming_a_file_that_is_not_there_is_named(synthetic):
    df = table(synthetic); df.loc[3,'filename'] = 'nowhere.wav'
    dls = block(synthetic, splitter=CrossValidationSplitter(fold=df.fold[3])).dataloaders(df, bs=4, num_workers=0)
    with pytest.raises(FileNotFoundError, match='no such audio file: .*nowhere.wav'): list(dls.valid)

def test_folders_of_classes_work(tmp_path):
    for part in ('train','valid'):
        for c in 'xy':
            (tmp_path/part/c).mkdir(parents=True)
            for i in range(3): noise(1,900+i).save(tmp_path/part/c/f'{i}.wav')
    dls = DataBlock(blocks=(AudioBlock,CategoryBlock), get_items=get_audio_files, get_y=parent_label,
                    splitter=GrandparentSplitter()).dataloaders(tmp_path, bs=3, num_workers=0)
    assert list(dls.vocab)==['x','y'] and len(dls.train_ds)==len(dls.valid_ds)==6 and dls.one_batch()[0].shape[:2]==(3,1)

# ---- splitting

@pytest.mark.parametrize('folds,fold', [([1,2,3,1],1), (list('abca'),'a'), (['1','2','3','1'],1), ([1,2,3,1],'1'),
                                        ([True,False,False,True],True), ([True,False,False,True],'True'), ([1.,2.,3.,1.],1)])
def test_one_fold_is_held_out(folds, fold):
    df = pd.DataFrame(dict(filename=list('wxyz'), part=folds), index=[10,11,12,13])
    for col in ('part',1):
        train,valid = CrossValidationSplitter(col, fold)(df)
        assert (list(train), list(valid))==([1,2],[0,3])

def test_folds_partition_the_table(synthetic):
    df = table(synthetic)
    seen = sorted(i for f in range(1,6) for i in CrossValidationSplitter(fold=f)(df)[1])
    assert seen==list(range(80))

def test_bad_fold_or_column_is_named():
    df = pd.DataFrame(dict(filename=list('wx'), fold=[1,2], same=[1,1]))
    with pytest.raises(ValueError, match="col: no column 'group'.*'filename', 'fold'"): CrossValidationSplitter('group')(df)
    with pytest.raises(ValueError, match=r'fold: no row has fold 7; its values are \[1, 2\]'): CrossValidationSplitter(fold=7)(df)
    with pytest.raises(ValueError, match='fold: every row has same 1, so that none is left to train'): CrossValidationSplitter('same')(df)
    with pytest.raises(TypeError, match='expects a pandas DataFrame as items, got list'): CrossValidationSplitter()(['a.wav'])

def test_same_value_crosses_number_and_spelling_only_where_needed():
    s = lambda *v: pd.Series(list(v))
    assert same_value(s(1,2), 1).tolist()==same_value(s('1','2'), 1).tolist()==same_value(s(1,2), '1').tolist()==[True,False]
    assert same_value(s('a',None), 'a').tolist()==[True,False] and not same_value(s(1,2), 3).any()

# ---- the synthetic set

def files_of(path): return {p.relative_to(path).as_posix():p.read_bytes() for p in sorted(path.rglob('*')) if p.is_file()}

def test_same_seed_same_bytes(tmp_path):
    a,b,c = (files_of(synthetic_audio(tmp_path/n, n=16, seed=s)) for n,s in (('a',0),('b',0),('c',1)))
    assert a==b and a!=c and len(a)==17
    np.random.seed(1); state = np.random.get_state()[1].copy()
    assert files_of(synthetic_audio(tmp_path/'d', n=16))==a and (np.random.get_state()[1]==state).all()  # nor does it use the global state

def test_synthetic_set_has_the_layout_of_esc50(synthetic):
    df = table(synthetic)
    assert list(df.columns)==['filename','fold','target','category'] and len(df)==80
    assert sorted(p.name for p in (synthetic/'audio').iterdir())==sorted(df.filename)
    assert set(df.fold)==set(range(1,6)) and df.category.nunique()==8 and (df.groupby(['fold','category']).size()==2).all()
    assert (df.groupby('category').target.nunique()==1).all() and set(df.target)==set(range(8))
    for f in df.filename:
        x = AudioTensor.create(synthetic/'audio'/f)
        assert x.sr==16000 and x.nchannels==1 and .69<=x.duration<=1 and 1e-3<x.abs().max()<1
    assert len({sf.info(str(synthetic/'audio'/f)).frames for f in df.filename})>20

@pytest.mark.parametrize('kw', [dict(sr=8000), dict(seconds=.3), dict(folds=2), dict(n=3)])
def test_synthetic_set_follows_its_arguments(tmp_path, kw):
    path = synthetic_audio(tmp_path/'s', **{'n':16,**kw}); df = table(path)
    assert len(df)==kw.get('n',16) and set(df.fold)<=set(range(1,kw.get('folds',5)+1))
    x = [AudioTensor.create(path/'audio'/f) for f in df.filename]
    assert {o.sr for o in x}=={kw.get('sr',16000)} and max(o.duration for o in x)<=kw.get('seconds',1.)

# ---- real data

@pytest.mark.parametrize('name,labels', [('esc10','category'), ('fsdd','digit')])
def test_real_files_load(request, name, labels):
    path = request.getfixturevalue(name)
    df = pd.read_csv(path/'meta'/f'{name}.csv').sample(40, random_state=0).reset_index(drop=True)
    dls = DataBlock(blocks=(AudioBlock, CategoryBlock(vocab=sorted(df[labels].unique()))), get_x=ColReader('filename', pref=path/'audio'),
                    get_y=ColReader(labels), splitter=IndexSplitter(range(8))).dataloaders(df, bs=8, num_workers=0)
    seen = 0
    for dl in (dls.train.new(shuffle=False, drop_last=False), dls.valid):
        for xb,yb in dl:
            assert xb.sr==16000 and torch.isfinite(xb).all() and (xb.abs().amax((1,2))>0).all()
            for f,n in zip(xb.fn, xb.lengths.tolist()):
                i = sf.info(f); assert n==-(-i.frames*16000//i.samplerate)
            seen += len(yb)
    assert seen==40

# ---- caches that are never stale, ends that nothing passes

def saved_tone(path, f, n=8000, sr=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    AudioTensor(torch.sin(2*torch.pi*f*torch.arange(n)/sr)[None]*.5, sr=sr).save(path)

def pitch(x): return round(float(torch.fft.rfft(x.plain()[0]).abs().argmax())*x.sr/x.nsamples)

def test_a_cache_notices_files_that_change_places_and_older_files(tmp_path):
    import shutil
    d = tmp_path/'clips'; a,b = d/'a.wav',d/'b.wav'
    saved_tone(a, 440); saved_tone(b, 880); os.utime(a, (1e9,1e9)); os.utime(b, (1e9,1e9))  # as from an archive: one time for all
    out = preprocess_audio_folder(d, sample_rate=8000, progress=False)
    assert [pitch(AudioTensor.create(out/f)) for f in ('a.wav','b.wav')]==[440,880]
    made = (out/'a.wav').stat().st_mtime_ns; preprocess_audio_folder(d, sample_rate=8000, progress=False); assert (out/'a.wav').stat().st_mtime_ns==made
    a.rename(d/'c.wav'); b.rename(a); (d/'c.wav').rename(b)
    preprocess_audio_folder(d, sample_rate=8000, progress=False)
    assert [pitch(AudioTensor.create(out/f)) for f in ('a.wav','b.wav')]==[880,440]
    saved_tone(tmp_path/'old.wav', 1200); os.utime(tmp_path/'old.wav', (1,1)); shutil.copy2(tmp_path/'old.wav', a)
    preprocess_audio_folder(d, sample_rate=8000, progress=False); assert pitch(AudioTensor.create(out/'a.wav'))==1200

def test_of_two_settings_at_once_one_wins_whole(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    d = tmp_path/'clips'
    for i in range(12): saved_tone(d/f'{i}.wav', 300+i)
    def make(sr):
        try: return preprocess_audio_folder(d, sample_rate=sr, progress=False) and sr
        except ValueError as e: return str(e)
    for k in range(3):
        out = tmp_path/'clips_cached'
        with ThreadPoolExecutor(2) as pool: res = list(pool.map(make, (8000,4000)))
        won = [r for r in res if isinstance(r, int)]; assert len(won)==1 and any('holds audio processed with' in str(r) for r in res)
        assert {AudioTensor.create(f).sr for f in out.glob('*.wav')}=={won[0]}
        for f in out.iterdir(): f.unlink()
        out.rmdir()

def test_a_cache_that_cannot_be_is_named(tmp_path):
    d = tmp_path/'clips'; saved_tone(d/'a.wav', 440); (tmp_path/'file').write_text('x')
    with pytest.raises(ValueError, match='expected a folder, got the file'): preprocess_audio_folder(d, output_dir=tmp_path/'file', progress=False)
    out = preprocess_audio_folder(d, progress=False); (out/'preprocess.json').write_text('')
    with pytest.raises(ValueError, match='cannot read the settings in .*preprocess.json'): preprocess_audio_folder(d, progress=False)

@pytest.mark.parametrize('method', ['soxr','polyphase'])
def test_resampling_neither_hears_nor_rings_behind_an_end(method):
    g = torch.Generator().manual_seed(0); x = torch.rand(2,1,4000, generator=g)-.5
    real = torch.arange(4000)<torch.tensor([4000,2500])[:,None,None]
    y,z = (Resample(8000, method)(AudioTensor(torch.where(real, x, v), sr=16000, lengths=[4000,2500])) for v in (0.,9.))
    assert torch.equal(y.plain(), z.plain()) and not y.plain()[1,:,1250:].any() and y.lengths.tolist()==[2000,1250]
    alone = Resample(8000, method)(AudioTensor(x[1,:,:2500], sr=16000))
    torch.testing.assert_close(y.plain()[1,:,:1250], alone.plain(), rtol=0, atol=1e-6)

@pytest.mark.parametrize('t', [Resample(8000),Resample(16000),DownmixMono()], ids=lambda t: t.name)
def test_integer_samples_are_refused(t):
    with pytest.raises(TypeError, match='expected floating point samples.*int16.*32768'): t(AudioTensor(torch.ones(2,4000, dtype=torch.int16), sr=16000))

@pytest.mark.parametrize('x', [torch.rand(4000),torch.rand(2,1,4000)], ids=lambda x: str(tuple(x.shape)))
def test_samples_that_are_no_item_are_told_where_a_batch_is_made(x):
    with pytest.raises(ValueError, match=r'expected \(channel, time\)'): PadAudio()([(AudioTensor(x, sr=16000),)])

def test_float64_samples_become_float32_in_a_batch():
    xb = torch.stack([o[0] for o in PadAudio()([(AudioTensor(torch.rand(1,n, dtype=d), sr=16000),) for n,d in ((40,torch.float64),(30,torch.float32))])])
    assert xb.dtype==torch.float32

def test_a_cached_file_that_was_cut_is_made_again(tmp_path):
    d = tmp_path/'clips'; saved_tone(d/'a.wav', 440)
    f = preprocess_audio_folder(d, sample_rate=8000, progress=False)/'a.wav'
    whole = f.read_bytes(); f.write_bytes(whole[:len(whole)//2]); preprocess_audio_folder(d, sample_rate=8000, progress=False)
    assert pitch(AudioTensor.create(f))==440
    with pytest.raises(ValueError, match='output_dir: cannot make'): preprocess_audio_folder(d, output_dir=d/'a.wav'/'x', progress=False)

@pytest.mark.parametrize('old,new', [(44100,16000),(48000,16000),(16000,44100),(22050,16000),(44101,16000),(7,3),(3,7),(192000,8000)])
@pytest.mark.parametrize('dtype', [torch.float32,torch.float64])
def test_resampling_is_that_of_the_libraries_to_the_last_bit_at_any_length(old, new, dtype):
    "Without the zeros behind the end that let soxr return ceil(n*new/old) samples, and with a filter that is designed once"
    import soxr
    from scipy.signal import resample_poly
    for n in (*range(1, 40), 441, 1000, 4409, 4410, 4411):
        a = torch.randn(2, n, dtype=dtype, generator=torch.Generator().manual_seed(n)).numpy()
        k = -(-n*new//old)
        x = AudioTensor(torch.from_numpy(a), sr=old)
        assert np.array_equal(Resample(new)(x).numpy(), soxr.resample(np.pad(a, [(0,0),(0,-(-old//new))]).T, old, new, quality='HQ').T[:,:k])
        assert np.array_equal(Resample(new, 'polyphase')(x).numpy(), resample_poly(a, new, old, axis=-1)[:,:k])

# ---- workers that stay

class Where(Transform):
    "Adds the process and a random number to the first samples of a clip"
    def encodes(self, o:AudioTensor):
        o = o.clone(); o[...,0],o[...,1],o[...,2],o[...,3] = os.getpid(),random.random(),torch.rand(()),float(np.random.rand())
        return o

class Breaks(Transform):
    "Fails, or ends its process, where a file says so"
    def __init__(self, note): self.note = str(note)
    def encodes(self, o:AudioTensor):
        how = open(self.note).read() if os.path.exists(self.note) else ''
        if how=='raise': raise ValueError('told to fail')
        if how=='die': os._exit(3)
        return o

def _staying(synthetic, *tfms, stay=True, **kw):
    df = pd.read_csv(next((synthetic/'meta').glob('*.csv'))).head(26)
    block = DataBlock(blocks=(AudioBlock(crop_signal_to=100),CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'),
        splitter=IndexSplitter([0,1]), item_tfms=list(tfms))
    torch.manual_seed(0); random.seed(0); np.random.seed(0)
    return block.dataloaders(df, bs=4, num_workers=2, persistent_workers=stay, device='cpu')

def _pids(dl): return {int(p) for x,_ in dl for p in x[:,0,0]}

@pytest.mark.parametrize('how', [None,'fork','spawn'])
def test_workers_stay_and_bring_what_new_ones_would(synthetic, how):
    import multiprocessing as mp
    was = mp.get_start_method()
    if how: mp.set_start_method(how, force=True)
    try:
        def epochs(stay):
            dls = _staying(synthetic, Where(), stay=stay)
            torch.manual_seed(1); random.seed(1); np.random.seed(1)
            return [[x.cpu() for x,_ in dl] for dl in [dls.train,dls.valid]*(2 if how=='spawn' else 3)]
        a = epochs(True)
    finally: mp.set_start_method(was, force=True)
    b = epochs(False)
    pid = lambda e: {int(p) for x in e for p in x[:,0,0]}
    assert pid(a[0])==pid(a[2]) and pid(a[1])==pid(a[3]) and not pid(a[0])&pid(a[1])
    assert not pid(b[0])&pid(b[2])
    assert len({float(v) for e in a for x in e for v in x[:,0,2]})>len(a)*2  # random, and otherwise in each epoch
    for e,f in zip(a, b):
        assert len(e)==len(f)
        for x,y in zip(e, f): assert torch.equal(x[...,1:], y[...,1:])  # but for the processes

def test_a_broken_off_epoch_leaves_the_next_one_whole(synthetic):
    dls = _staying(synthetic, Where()); dl = dls.train
    first = _pids(dl)
    for b in dl: break
    del b
    assert [len(x) for x,_ in dl]==[4]*6 and _pids(dl)==first

def test_two_epochs_at_once(synthetic):
    dl = _staying(synthetic, Where()).valid
    seen = [(x,y) for (x,_),(y,_) in zip(dl, dl)]
    assert seen and all(torch.equal(x[...,4:], y[...,4:]) for x,y in seen)
    for _ in range(2): assert [torch.equal(x[...,4:], y[...,4:]) for (x,_),(y,_) in zip(dl, seen)]==[True]

@pytest.mark.parametrize('how', ['raise','die'])
def test_workers_that_fail_are_replaced(synthetic, tmp_path, how):
    dl = _staying(synthetic, Breaks(tmp_path/'note'), Where()).train
    first = _pids(dl)
    (tmp_path/'note').write_text(how)
    with pytest.raises((ValueError,RuntimeError), match='told to fail|exited unexpectedly'): list(dl)
    (tmp_path/'note').unlink()
    assert len(list(dl))==6 and not _pids(dl)&first

def test_killed_between_epochs(synthetic):
    import signal
    dl = _staying(synthetic, Where()).train
    first = _pids(dl)
    for w in dl._kept[0]._workers: os.kill(w.pid, signal.SIGKILL); w.join()
    assert len(list(dl))==6 and not _pids(dl)&first

def test_what_is_replaced_reaches_the_workers(synthetic):
    from fastai.vision.augment import RandTransform
    dls = _staying(synthetic, Where()); dl = dls.train
    first = _pids(dl)
    dl.bs = 8
    assert [len(x) for x,_ in dl]==[8]*3 and not (second:=_pids(dl))&first
    with dl.dataset.set_split_idx(1): third = _pids(dl)
    assert not third&second
    class Double(Transform):
        order = 90
        def encodes(self, o:AudioTensor): return o*2
    quiet = torch.cat([x for x,_ in dls.valid])[...,4:]
    dls.valid.after_item.add(Double())
    assert torch.equal(torch.cat([x for x,_ in dls.valid])[...,4:], quiet*2)

def test_workers_end_with_their_loader(synthetic):
    import gc
    dls = _staying(synthetic, Where())
    list(dls.train)
    ws = dls.train._kept[0]._workers
    assert all(w.is_alive() for w in ws)
    copy = pickle.loads(pickle.dumps(dls.train))
    assert copy._kept is None and len(list(copy))==6
    del dls; gc.collect()
    for w in ws: w.join(10)
    assert [w.exitcode for w in ws]==[0,0]  # told to end, not killed

def test_no_workers_no_pool(synthetic):
    df = pd.read_csv(next((synthetic/'meta').glob('*.csv'))).head(8)
    dls = DataBlock(blocks=(AudioBlock(crop_signal_to=100),CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'),
        splitter=IndexSplitter([0])).dataloaders(df, bs=4, num_workers=0, persistent_workers=True)
    assert len(list(dls.train))==1 and dls.train._kept is None

def test_loaders_that_are_gone_leave_no_processes(synthetic):
    import gc,multiprocessing as mp
    gc.collect()
    before = len(mp.active_children())
    for i in range(6):
        dls = _staying(synthetic, Where())
        list(dls.train); list(dls.valid)
        assert len(mp.active_children())-before<=8  # these, and at most those of the loop before
    del dls; gc.collect()
    assert len(mp.active_children())==before

def test_workers_that_are_about_to_end_are_replaced(synthetic):
    import signal
    dl = _staying(synthetic, Where()).train
    for _ in range(5):
        for b in dl: break
        for w in dl._kept[0]._workers: os.kill(w.pid, signal.SIGINT)  # what Ctrl-C does to them
        assert [len(x) for x,_ in dl]==[4]*6

def _in_a_fork(dl, q):
    q.put([len(x) for x,_ in dl])
    dl.bs = 8
    q.put([len(x) for x,_ in dl])

def test_a_forked_process_starts_workers_of_its_own(synthetic):
    import multiprocessing as mp
    dl = _staying(synthetic, Where()).train
    first,q = _pids(dl),mp.get_context('fork').SimpleQueue()
    p = mp.get_context('fork').Process(target=_in_a_fork, args=(dl,q)); p.start()
    assert q.get()==[4]*6 and q.get()==[8]*3
    p.join(60)
    assert p.exitcode==0 and _pids(dl)==first

def test_items_and_functions_that_are_replaced_reach_the_workers(synthetic):
    dl = _staying(synthetic, Where()).valid
    first = [x for x,_ in dl][0][...,4:]
    tl = dl.dataset.tls[0]
    tl.items = tl.items.iloc[::-1]
    assert torch.equal([x for x,_ in dl][0][...,4:], first.flip(0))
    dl.wif = lambda: torch.manual_seed(7)
    pids = _pids(dl)
    assert _pids(dl)==pids
    dl.create_batch = lambda b: type(dl).create_batch(dl, b[:1])
    assert [len(x) for x,_ in dl]==[1] and _pids(dl)!=pids

def test_any_get_idxs(synthetic):
    class Named(type(_staying(synthetic).train)):
        def get_idxs(self): return [f'no {i}' for i in range(8)]
        def create_item(self, s): return AudioTensor(torch.full((1,5), float(s[3:])), sr=16000)
    dl = Named(list(range(8)), bs=4, num_workers=2, persistent_workers=True, do_setup=False)
    for _ in range(2): assert [x[:,0,0].tolist() for x in dl]==[[0,1,2,3],[4,5,6,7]]
