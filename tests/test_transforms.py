"Normalizing transforms: reversible, typed, strict about what fits"
import copy,pickle,warnings
import pytest, torch
from fastai.vision.all import Pipeline,TensorCategory,TensorImage,TensorImageBW,TensorMask
from specnorm_fastai.all import *

def _spec(*shape, **kw): return AudioSpectrogram.create(torch.randn(*shape)*20-30, settings=dict(sr=16000, n_fft=400, hop_length=200, to_db=True), **kw)

@pytest.mark.parametrize('axes', ['global','frequency',(0,3),(0,1,2,3)])
@pytest.mark.parametrize('c', [1,2])
def test_decode_inverts_encode_for_items_and_batches(axes, c):
    x = _spec(3,c,7,11)
    rec = StatsRecorder(axes); rec.update(x)
    t = SpecNormalize.from_recorder(rec)
    z = t(x)
    assert type(z) is AudioSpectrogram and z.shape==x.shape and z.dtype==x.dtype
    assert torch.allclose(t.decode(z).plain(), x.plain(), atol=1e-4)       # float32 at 100 dB
    for i in range(3):
        assert torch.allclose(t(x[i]).plain(), z[i].plain(), atol=1e-6)
        back = t.decode(t(x[i]))
        assert back.shape==x[i].shape and torch.allclose(back.plain(), x[i].plain(), atol=1e-4)
    assert (t.decode(z).units,z.units,t.decode(z).settings)==('dB','std',x.settings)

@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16,torch.float32,torch.float64])
def test_statistics_follow_the_batchs_dtype(dtype):
    x = _spec(2,1,4,9).to(dtype)
    assert SpecNormalize(-30., 20.)(x).dtype==dtype

def test_lengths_and_names_survive():
    x = _spec(2,1,4,9, lengths=[9,5], fn=('a.wav','b.wav'))
    z = SpecNormalize(0., 2.)(x)
    assert z.lengths.tolist()==[9,5] and z.fn==('a.wav','b.wav') and z[1].fn=='b.wav' and z[1].lengths==5

def test_other_types_pass_untouched():
    t = Pipeline([AudioNormalize(), SpecNormalize(3., 2.)])
    for o in (TensorImage(torch.rand(2,3,8,8)), TensorImageBW(torch.rand(2,1,8,8)), TensorMask(torch.ones(2,8,8)), TensorCategory(torch.tensor([1,2])), torch.rand(2,1,8,8)):
        assert t(o) is o and t.decode(o) is o

@pytest.mark.parametrize('args,msg', [
    ((0.,0.), 'std: 0 everywhere'), ((0.,-1.), 'std: expected values above 0'), ((float('nan'),1.), 'mean: NaN or Inf'), ((0.,float('inf')), 'std: NaN or Inf'),
    ((1.,), 'give both or neither'), ((torch.zeros(1,1,4,1),torch.ones(1,1,4,1),(0,2,3)), 'does not fit axes'),
    ((torch.zeros(2,1,1,1),torch.ones(2,1,1,1)), 'does not fit axes'), ((torch.zeros(4,1),torch.ones(4,1),(0,1,3)), 'expected a number'),
    ((torch.zeros(1,1,4,1),torch.ones(1,1,5,1),(0,1,3)), 'their shapes do not fit'), ((0.,1.,(2,3)), 'axes: must hold 0'), ((0.,1.,'time'), 'axes: expected one of')])
def test_bad_statistics_are_refused(args, msg):
    with pytest.raises(ValueError, match=msg): SpecNormalize(*args)

def test_statistics_of_another_height_or_rank_are_refused():
    t = SpecNormalize([1.]*4, [2.]*4, 'frequency')
    assert t.mean.shape==(1,1,4,1)
    for f in (t, t.decode):
        with pytest.raises(ValueError, match='do not fit'): f(_spec(2,1,5,9))
    with pytest.raises(ValueError, match='expected a spectrogram'): t(_spec(1,4,9)[0])
    with pytest.raises(ValueError, match='has no statistics'): SpecNormalize()(_spec(2,1,5,9))

def test_a_constant_row_is_named_and_stays_finite():
    x = _spec(4,1,6,9); x[:,:,2] = -100.
    rec = StatsRecorder('frequency'); rec.update(x)
    with pytest.warns(UserWarning, match='rows 2:'): t = SpecNormalize.from_recorder(rec)
    z = t(x).plain()
    assert torch.isfinite(z).all() and (z[:,:,2]==0).all() and torch.allclose(t.decode(t(x)).plain(), x.plain(), atol=1e-4)

def test_encoding_changes_no_state_and_pickles():
    x,t = _spec(2,1,4,9),SpecNormalize(-30., 20.)
    before = copy.deepcopy(t.__dict__)
    t.decode(t(x))
    assert before.keys()==t.__dict__.keys() and torch.equal(before['mean'], t.mean)
    assert torch.equal(pickle.loads(pickle.dumps(t))(x).plain(), t(x).plain())

def test_audio_normalize_treats_channels_and_items_alone():
    x = AudioTensor(torch.randn(3,2,1000)*torch.tensor([.1,1.,9.])[:,None,None]+torch.tensor([0.,5.])[:,None], sr=16000)
    z = AudioNormalize()(x)
    assert torch.allclose(z.plain().mean(-1), torch.zeros(3,2), atol=1e-5) and torch.allclose(z.plain().std(-1), torch.ones(3,2), atol=1e-5)
    for i in range(3): assert torch.equal(AudioNormalize()(x[i]).plain(), z[i].plain())

def test_audio_normalize_of_a_padded_clip_is_that_of_the_clip():
    clip = AudioTensor(torch.randn(1,5000)+.3, sr=1000)
    z = AudioNormalize()(clip).plain()
    for ms in (6000, 10000):
        p = AudioNormalize()(ResizeSignal(ms, AudioPadType.Zeros_After)(clip))
        assert torch.equal(p.plain()[...,:5000], z) and (p.plain()[...,5000:]==0).all() and p.lengths==5000

def test_audio_normalize_of_silence_is_silence():
    for x in (torch.zeros(1,100), torch.full((2,100), .25), torch.randn(1,1), torch.zeros(1,100)+1e-9*torch.rand(1,100)):
        z = AudioNormalize()(AudioTensor(x, sr=16000)).plain()
        assert (z==0).all()
    mixed = AudioTensor(torch.stack([torch.zeros(1,100), torch.randn(1,100)]), sr=16000)
    assert torch.isfinite(AudioNormalize()(mixed).plain()).all()

def test_integers_are_refused_not_truncated():
    with pytest.raises(TypeError, match='floating point'): AudioNormalize()(AudioTensor((torch.randn(1,8)*3000).short(), sr=16000))
    with pytest.raises(TypeError, match='floating point'): SpecNormalize(-20., 10.)(_spec(1,1,4,9).to(torch.int32))
    with pytest.raises(ValueError, match="did you mean SpecNormalize\\(axes='frequency'\\)"): SpecNormalize('frequency')
