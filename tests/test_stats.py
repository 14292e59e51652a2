"Statistics: exact over elements, over the whole train split, once"
import random
import numpy as np, pytest, torch
from fastai.vision.all import (AdaptiveAvgPool,CategoryBlock,ColReader,DataBlock,Flatten,ItemTransform,Learner,RandTransform,nn,pd)
from hypothesis import given,settings,strategies as st
from specnorm_fastai.all import *

def _np_stats(x, red): x = np.asarray(x, dtype=np.float64); return x.mean(red, keepdims=True),x.std(red, keepdims=True)

@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0,5), min_size=1, max_size=6), c=st.integers(1,2), f=st.integers(1,6), t=st.integers(1,9),
       off=st.sampled_from([0.,-40.,1e4]), scale=st.sampled_from([1e-3,1.,30.]), red=st.sampled_from([(0,2,3),(0,1,3),(0,3),(0,1,2,3)]), seed=st.integers(0,99))
def test_any_split_into_batches_gives_numpys_statistics(sizes, c, f, t, off, scale, red, seed):
    rng = np.random.default_rng(seed)
    xs = [torch.tensor(rng.normal(size=(b,c,f,t))*scale+off) for b in sizes]
    rec = StatsRecorder(red)
    for x in xs: rec.update(x)
    allx = torch.cat(xs)
    if not len(allx): return
    m,s = _np_stats(allx, red)
    # float64 keeps 16 digits; a deviation of 1e-3 on a mean of 1e4 leaves 9 of them to the input itself
    assert np.allclose(rec.mean, m, rtol=1e-12, atol=1e-14*max(scale,abs(off)))
    assert np.allclose(rec.std, s, rtol=1e-10, atol=1e-12*max(scale,abs(off)*1e-3))
    assert rec.nobservations==sum(sizes) and (rec.count==allx.numel()//m.size).all()

@pytest.mark.parametrize('red', [(0,2,3),(0,1,3)])
def test_large_mean_small_std_in_float32_batches(red):
    "Mean 1e4, std 1: float32 sums would lose the deviation, the recorder must not"
    x = (torch.randn(50,1,20,30)+1e4)
    rec = StatsRecorder(red)
    for b in x.split([7,20,1,22]): rec.update(b)
    m,s = _np_stats(x, red)
    assert np.abs(rec.mean.numpy()/m-1).max()<1e-10 and np.abs(rec.std.numpy()/s-1).max()<1e-10

def test_unequal_lengths_weigh_by_elements():
    short,long = torch.randn(1,1,5,10)+10,torch.randn(1,1,5,90)
    both = np.concatenate([short,long], -1)
    rec = StatsRecorder()
    for x in (short,long): rec.update(x)
    assert abs(rec.std.item()/both.astype(np.float64).std()-1)<1e-10
    masked = StatsRecorder()
    masked.update(torch.cat([torch.nn.functional.pad(short,(0,80),value=-100.), long]), lengths=torch.tensor([10,90]))
    assert abs(masked.std.item()/rec.std.item()-1)<1e-12 and masked.count.item()==500

def test_shapes_and_types():
    x = AudioSpectrogram.create(torch.randn(4,1,201,11), settings=dict(sr=16000))
    g,c = StatsRecorder(red_dims=(0,2,3)),StatsRecorder(red_dims=(0,1,3))
    for r in (g,c): r.update(x)
    assert g.mean.shape==g.std.shape==(1,1,1,1) and c.mean.shape==c.std.shape==(1,1,201,1)
    for r in (g,c):
        assert type(r.mean) is torch.Tensor and type(r.std) is torch.Tensor and r.mean.dtype==torch.float64 and r.nobservations==4

@pytest.mark.parametrize('dtype', [torch.float16,torch.bfloat16,torch.float32])
def test_low_precision_input_is_summed_in_float64(dtype):
    x = (torch.randn(8,1,4,500)*3+50).to(dtype)
    rec = StatsRecorder(); rec.update(x)
    assert abs(rec.std.item()/x.double().std(correction=0).item()-1)<1e-10

def test_a_failed_update_changes_nothing():
    rec = StatsRecorder('frequency'); rec.update(torch.randn(2,1,4,9)); m = rec.mean.clone()
    bad = torch.randn(2,1,4,9); bad[1,0,2,3] = float('inf')
    for x,msg in ((torch.randn(2,1,5,9),'holds'), (torch.randn(2,2,4,9),'holds'), (torch.randn(1,4,9),'expected a batch'), (bad,'NaN or Inf in item 1'), ([1,2],'list')):
        with pytest.raises(ValueError, match=msg): rec.update(x)
    with pytest.raises(ValueError, match='lengths'): rec.update(torch.randn(2,1,4,9), lengths=torch.tensor([1]))
    assert rec.nobservations==2 and torch.equal(rec.mean, m)

@pytest.mark.parametrize('red', [(1,2),(0,2),(2,3),(0,1,2),(0,3,5),7,'time'])
def test_red_dims_must_hold_batch_and_time(red):
    with pytest.raises(ValueError, match='red_dims'): StatsRecorder(red)

def test_an_empty_recorder_says_so():
    for a in ('mean','std','count'):
        with pytest.raises(ValueError, match='no frames yet'): getattr(StatsRecorder(), a)
    assert 'empty' in repr(StatsRecorder())

# --- over a train split

N_FFT,HOP = 512,256
def _cfg(): return AudioConfig.BasicSpectrogram(n_fft=N_FFT, hop_length=HOP)

def _block(path, *tfms, item_tfms=None, fold=1):
    return DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'),
                     splitter=CrossValidationSplitter(fold=fold), item_tfms=item_tfms, batch_tfms=[AudioNormalize(), AudioToSpec.from_cfg(_cfg()), *tfms])

def _numpy_frames(file, crop=None):
    "dB spectrogram of a file by numpy alone, in float64, without its frames of digital silence"
    import soundfile as sf
    x = sf.read(file, dtype='float64')[0]
    if crop and len(x)>crop: at = int(.5*(len(x)-crop+1)); x = x[at:at+crop]
    starts = np.arange(0, len(x)+1, HOP)-N_FFT//2
    sounds = np.array([np.ptp(x[max(i,0):i+N_FFT])>1e-6*np.ptp(x) for i in starts])
    x = (x-x.mean())/x.std(ddof=1)
    x = np.pad(x, N_FFT//2, mode='reflect')
    fr = np.lib.stride_tricks.sliding_window_view(x, N_FFT)[::HOP]*np.hanning(N_FFT+1)[:-1]
    return 10*np.log10(np.maximum(np.abs(np.fft.rfft(fr))**2, 1e-10)).T[:,sounds]

def _numpy_stats(path, df, crop=None):
    x = np.concatenate([_numpy_frames(path/'audio'/f, crop) for f in df.filename], 1)
    return (x.mean(),x.std()),(x.mean(1),x.std(1))

def _table(path): return pd.read_csv(path/'meta'/'synthetic.csv')
def _model(): return nn.Sequential(AdaptiveAvgPool(1), Flatten(), nn.Linear(1,8))

@pytest.mark.parametrize('workers,bs', [(0,12),(2,7)])
def test_callback_and_setup_equal_numpy_over_every_train_file(synthetic, workers, bs):
    df = _table(synthetic); norm = SpecNormalize(axes='frequency')
    dls = _block(synthetic, norm).dataloaders(df, bs=bs, num_workers=workers)
    glob,freq = StatsRecorder(red_dims=(0,2,3)),StatsRecorder(red_dims=(0,1,3))
    learn = Learner(dls, _model(), cbs=StatsCallback(glob, freq))
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    (m,s),(fm,fs) = _numpy_stats(synthetic, df[df.fold!=1])
    # waveform normalization and the window are float32 here: 1e-7 of the values, magnified near the floor
    assert abs(glob.mean.item()-m)<2e-3 and abs(glob.std.item()/s-1)<1e-4
    for rec_m,rec_s in ((freq.mean,freq.std),(norm.mean,norm.std)):
        assert np.abs(rec_m.flatten().numpy()-fm).max()<2e-2 and np.abs(rec_s.flatten().numpy()/fs-1).max()<1e-3
    assert glob.nobservations==len(dls.train_ds)==64 and learn.stats.recorders==(glob,freq)

def test_crops_are_centred_and_statistics_repeat(synthetic):
    df = _table(synthetic)
    dls = _block(synthetic, item_tfms=ResizeSignal(300)).dataloaders(df, bs=9, num_workers=0)
    a,b = (collect_stats(dls, StatsRecorder())[0] for _ in range(2))
    assert a.mean.item()==b.mean.item()
    (m,s),_ = _numpy_stats(synthetic, df[df.fold!=1], crop=4800)
    assert abs(a.mean.item()-m)<2e-3 and abs(a.std.item()/s-1)<1e-4

def test_the_callback_neither_changes_training_order_nor_random_state(synthetic):
    from fastai.callback.core import Callback
    class Spy(Callback):
        def before_fit(self): self.seen = []
        def before_batch(self): self.seen.append(self.xb[0].fn) if self.training else None
    def run(*cbs):
        random.seed(1); np.random.seed(1); torch.manual_seed(1)
        dls = _block(synthetic, item_tfms=ResizeSignal(300)).dataloaders(_table(synthetic), bs=16, num_workers=0)
        learn = Learner(dls, _model(), cbs=[Spy(), *cbs])
        with learn.no_bar(), learn.no_logging(): learn.fit(2)
        return learn.spy.seen,random.random(),np.random.rand(),torch.rand(1).item(),learn.model[2].weight.detach().clone()
    a,b = run(),run(StatsCallback(StatsRecorder()))
    assert a[:4]==b[:4] and torch.equal(a[4], b[4])

def test_the_callback_runs_once_and_before_normalization(synthetic):
    rec = StatsRecorder()
    dls = _block(synthetic, SpecNormalize(5., 2.)).dataloaders(_table(synthetic), bs=16, num_workers=0)
    learn = Learner(dls, _model())
    cb = StatsCallback(rec)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=cb); n = rec.nobservations; learn.fit(1, cbs=cb)
    assert n==rec.nobservations==64 and rec.std.item()>10  # normalized by (5,2) it would be smaller
    (m,_),_ = _numpy_stats(synthetic, _table(synthetic).query('fold!=1'))
    assert abs(rec.mean.item()-m)<2e-3

def test_augmentation_stays_out_of_the_statistics(synthetic):
    class Louder(RandTransform):
        def encodes(self, x:AudioSpectrogram): return x+1000
    dls = _block(synthetic, Louder()).dataloaders(_table(synthetic), bs=16, num_workers=0)
    assert dls.train.one_batch()[0].mean()>500
    assert collect_stats(dls, StatsRecorder())[0].mean.item()<100
    assert dls.train.one_batch()[0].mean()>500

def test_two_folds_from_one_block_have_their_own_statistics(synthetic):
    df,norm = _table(synthetic),SpecNormalize()
    block = _block(synthetic, norm)
    def means(fold):
        block.splitter = CrossValidationSplitter(fold=fold)
        block.dataloaders(df, bs=16, num_workers=0)
        return norm.mean.item()
    m1,m2 = means(1),means(2)
    for fold,m in ((1,m1),(2,m2)): assert abs(m-_numpy_stats(synthetic, df[df.fold!=fold])[0][0])<2e-3
    assert m1!=m2

def test_given_statistics_are_never_overwritten(synthetic):
    norm = SpecNormalize(-7., 3.)
    _block(synthetic, norm).dataloaders(_table(synthetic), bs=16, num_workers=0)
    assert (norm.mean.item(),norm.std.item())==(-7.,3.)

def test_errors_during_setup_surface(synthetic):
    class Broken(ItemTransform):
        order = 50
        def encodes(self, o): return o[0].no_such_attribute
    with pytest.raises(RuntimeError, match='no_such_attribute'):
        _block(synthetic, Broken(), SpecNormalize()).dataloaders(_table(synthetic), bs=16, num_workers=0)

def test_setup_without_a_spectrogram_says_what_came(synthetic):
    block = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'),
                      splitter=CrossValidationSplitter(), batch_tfms=[SpecNormalize()])
    with pytest.raises(ValueError, match="no AudioSpectrogram in a batch of \\['AudioTensor'\\]"):
        block.dataloaders(_table(synthetic), bs=16, num_workers=0)

def test_a_failed_pass_leaves_recorders_as_they_were(synthetic, tmp_path):
    import shutil
    shutil.copytree(synthetic, tmp_path/'d')
    dls = _block(tmp_path/'d').dataloaders(_table(synthetic), bs=16, num_workers=0)
    rec, = collect_stats(dls, StatsRecorder()); m = rec.mean.item()
    bad = dls.train_ds.items.filename.iloc[-1]
    (tmp_path/'d'/'audio'/bad).write_bytes(b'')
    with pytest.raises(ValueError, match=bad): collect_stats(dls, rec)
    assert rec.mean.item()==m and rec.nobservations==64

def test_a_callback_measures_again_where_the_data_are_others(synthetic):
    df,rec = _table(synthetic),StatsRecorder()
    cb,means = StatsCallback(rec),[]
    learn = Learner(_block(synthetic).dataloaders(df, bs=16, num_workers=0), _model())
    for fold in (1,2,2):
        if fold!=1: learn.dls = _block(synthetic, fold=fold).dataloaders(df, bs=16, num_workers=0)
        with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=cb)
        means.append(rec.mean.item())
    assert means[0]!=means[1]==means[2]
    for m,fold in zip(means,(1,2)): assert abs(m-_numpy_stats(synthetic, df[df.fold!=fold])[0][0])<2e-3

def test_statistics_are_taken_before_a_normalization_of_items_too(synthetic):
    block = DataBlock(blocks=(AudioBlock(crop_signal_to=500), CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'),
                      splitter=CrossValidationSplitter(), item_tfms=[AudioToSpec.from_cfg(_cfg()), SpecNormalize(-30., 20.)], batch_tfms=[])
    raw = DataBlock(blocks=(AudioBlock(crop_signal_to=500), CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'),
                    splitter=CrossValidationSplitter(), item_tfms=[AudioToSpec.from_cfg(_cfg())])
    a,b = (collect_stats(bl.dataloaders(_table(synthetic), bs=16, num_workers=0), StatsRecorder())[0] for bl in (block,raw))
    assert a.mean.item()==b.mean.item() and abs(a.std.item())>10

def test_two_spectrograms_in_a_batch_are_not_confused(synthetic):
    block = DataBlock(blocks=(AudioBlock, AudioBlock, CategoryBlock), n_inp=2, get_x=[ColReader('filename', pref=synthetic/'audio')]*2, get_y=ColReader('category'),
                      splitter=CrossValidationSplitter(), batch_tfms=[AudioToSpec.from_cfg(_cfg()), SpecNormalize()])
    with pytest.raises(ValueError, match='expected one AudioSpectrogram in a batch'): block.dataloaders(_table(synthetic), bs=16, num_workers=0)

@pytest.mark.parametrize('lengths', [[-1,2],[1,10]])
def test_lengths_outside_of_the_batch_are_refused(lengths):
    with pytest.raises(ValueError, match='lengths: expected 0 to 9'): StatsRecorder().update(torch.randn(2,1,4,9), lengths=torch.tensor(lengths))

@given(parts=st.lists(st.integers(0,6), min_size=1, max_size=7), cuts=st.integers(0,7), order=st.randoms(use_true_random=False), ddof=st.integers(0,1), red=st.sampled_from([(0,2,3),(0,1,3),(0,3)]),
       off=st.sampled_from([0.,-40.,1e4]), seed=st.integers(0,99))
def test_merging_is_associative_and_commutative(parts, cuts, order, ddof, red, off, seed):
    "Any tree over any order of parts, empty ones among them, equals numpy over all elements"
    rng = np.random.default_rng(seed)
    xs = [torch.tensor(rng.normal(size=(b,2,3,5))*3+off) for b in parts]
    if sum(parts)<1: return
    recs = []
    for x in xs: r = StatsRecorder(red, ddof); (r.update(x) if len(x) else None); recs.append(r)
    order.shuffle(recs)
    before = [r.nobservations for r in recs]
    while len(recs)>1:
        i = order.randrange(len(recs)-1); recs[i:i+2] = [recs[i]+recs[i+1]]
    tot = recs[0]; allx = torch.cat(xs).numpy()
    m,s = allx.mean(red, keepdims=True),allx.std(red, keepdims=True, ddof=ddof)
    assert tot.nobservations==sum(parts)==sum(before)
    # float64; merging adds one rounding of the mean a level, 1e-16 of the offset
    assert np.allclose(tot.mean, m, rtol=1e-13, atol=1e-13) and np.allclose(tot.std, s, rtol=1e-9)

def test_adding_leaves_both_and_merging_leaves_the_other():
    a,b = StatsRecorder(),StatsRecorder()
    a.update(torch.randn(2,1,3,4)); b.update(torch.randn(3,1,3,4)+9)
    am,bm = a.mean.clone(),b.mean.clone()
    c = a+b
    assert torch.equal(a.mean, am) and torch.equal(b.mean, bm) and c.nobservations==5
    assert a.merge(b) is a and torch.equal(b.mean, bm) and torch.allclose(a.mean, c.mean, rtol=1e-14)
    b.update(torch.randn(1,1,3,4))
    assert c.nobservations==5

def test_what_does_not_fit_is_not_merged():
    a = StatsRecorder(); a.update(torch.randn(2,1,3,4))
    b = StatsRecorder(); b.update(torch.randn(2,1,4,4))
    for o,msg in ((b,r'holds \(1, 3\)'), (StatsRecorder('frequency'),'expected red_dims'), (StatsRecorder(ddof=1),'ddof')):
        with pytest.raises(ValueError, match=msg): a.merge(o)
    with pytest.raises(TypeError, match='expected a StatsRecorder'): a+1
    with pytest.raises(ValueError, match='ddof'): StatsRecorder(ddof=-1)
    one = StatsRecorder('frequency', ddof=1); one.update(torch.randn(1,1,3,1))
    with pytest.raises(ValueError, match='less than the count'): one.std
    assert a.nobservations==2
