"Crops that hold sound, and several of them at validation"
import math,pickle,random,warnings
import numpy as np
import pandas as pd
import pytest, torch
from hypothesis import given,strategies as st
from fastai.callback.core import Callback
from fastai.vision.all import (AdaptiveAvgPool,BCEWithLogitsLossFlat,CategoryBlock,ColReader,CrossEntropyLossFlat,DataBlock,F,FocalLossFlat,Flatten,
    LabelSmoothingCrossEntropyFlat,Learner,MSELossFlat,MultiCategoryBlock,RegressionBlock,Transform,accuracy,accuracy_multi,load_learner,nn,partial,set_seed)
from fastai.interpret import ClassificationInterpretation

from specnorm_fastai.callback import AverageCrops,StatsCallback,_average,_averages,_mean_of
from specnorm_fastai.core import AudioSpectrogram,AudioTensor
from specnorm_fastai.data import AudioBlock,AudioPadType,CrossValidationSplitter,DownmixMono,Resample,ResizeSignal,_window_power
from specnorm_fastai.drift import DriftMonitor
from specnorm_fastai.features import AudioConfig,AudioToSpec
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize

# ---- min_energy

def clip(n, seed=0, ch=1, share=.3):
    "Bursts of noise of all levels between exact zeros"
    g = np.random.default_rng(seed)
    x = g.normal(size=(ch,n))*10**g.uniform(-3, 0, size=(ch,1))
    keep = np.repeat(g.random(-(-n//7))<share, 7)[:n]
    return AudioTensor(torch.tensor(x*keep*10**g.uniform(-2, 0, size=n), dtype=torch.float32), sr=1000, fn='a.wav')

def brute(x, n, db):
    "Powers of all windows one by one, in Python's exact sums"
    v = (x.plain().double()**2).sum(0).tolist()
    p = [math.fsum(v[i:i+n]) for i in range(len(v)-n+1)]
    return p,[i for i,o in enumerate(p) if o>=max(p)*10**(db/10)]

@given(n=st.integers(10,90), k=st.integers(2,9), seed=st.integers(0,99), ch=st.integers(1,3), db=st.floats(-60,-.5))
def test_crops_start_where_the_window_is_loud_enough(n, k, seed, ch, db):
    x = clip(n, seed, ch)
    p,ok = brute(x, k, db)
    got = [int(i) for i in ResizeSignal(k, min_energy=db)._starts(x, k)]
    edge = {i for i,o in enumerate(p) if max(p)>0 and abs(o/max(p)/10**(db/10)-1)<1e-9}  # sums in another order
    assert set(got)^set(ok)<=edge and got==sorted(got)

@given(n=st.integers(10,90), seed=st.integers(0,99), db=st.floats(-60,0), j=st.integers(-20,20))
def test_the_choice_does_not_depend_on_the_gain(n, seed, db, j):
    x,t = clip(n, seed),ResizeSignal(5, min_energy=db)
    assert list(t._starts(x, 5))==list(t._starts(x*2.**j, 5))  # powers of two: every sum is the same but for its exponent

def test_any_gain_changes_no_crop_but_by_rounding():
    for seed in range(20):
        x,t = clip(4000, seed),ResizeSignal(500, min_energy=-15)
        a,b = (set(map(int, t._starts(x*g, 500))) for g in (1.,.37))
        assert len(a^b)<=2  # float32 samples at the very threshold

def test_all_starts_that_qualify_are_equally_likely():
    x = AudioTensor(torch.zeros(1,60), sr=1000); x[0,20] = 1.; x[0,40] = .5
    t = ResizeSignal(10, min_energy=-10)  # .5 is -6 dB
    random.seed(1)
    n = 4000
    got = np.bincount([next(i for i,s in enumerate(t._starts(x, 10)) if torch.equal(x.plain()[:,s:s+10], y)) if y.any() else -1
                       for y in (t(x, split_idx=0).plain() for _ in range(n))], minlength=20)
    assert len(got)==20 and (abs(got-n/20)<5*np.sqrt(n/20)).all()  # chi: 5 standard errors, 20 places

@given(n=st.integers(1,60), to=st.integers(1,60), pad=st.sampled_from(list(AudioPadType)), train=st.booleans(), seed=st.integers(0,9))
def test_without_a_choice_it_crops_and_pads_as_without_min_energy(n, to, pad, train, seed):
    x = AudioTensor(torch.ones(1,n), sr=1000)*(.1 if seed else 0.)  # equally loud everywhere, or silent
    def one(**kw): random.seed(seed); return ResizeSignal(to, pad, **kw)(x, split_idx=0 if train else 1)
    a,b = one(),one(min_energy=-3)
    assert torch.equal(a, b) and a.real_lengths==b.real_lengths and a.fn==b.fn

def test_silent_clips_crop_at_random_in_training_and_in_the_middle_at_validation():
    t = ResizeSignal(10, min_energy=-20)
    for x in (torch.zeros(2,100), torch.full((2,100), torch.nan)):
        assert list(t._starts(AudioTensor(x, sr=1000), 10))==list(range(91))
        assert t(AudioTensor(x, sr=1000), split_idx=1).shape==(2,10)

def test_validation_takes_the_middle_of_the_starts_every_time():
    x,t = clip(3000, 3, 2),ResizeSignal(400, min_energy=-10)
    ok = t._starts(x, 400)
    at = int(ok[len(ok)//2])
    for _ in range(5): assert torch.equal(t(x, split_idx=1), x[:,at:at+400])

def test_padding_is_not_heard():
    x = AudioTensor(torch.cat([torch.ones(1,30)*.1, torch.zeros(1,20), torch.ones(1,50)], 1), sr=1000, lengths=50)
    assert [int(i) for i in ResizeSignal(10, min_energy=-1)._starts(x[:,:50], 10)]==list(range(23))  # 8 of 10 samples at least
    for idx in (0,1):
        for _ in range(20): assert (ResizeSignal(10, min_energy=-1)(x, split_idx=idx).plain()<.2).all()

def test_channels_are_judged_together():
    x = AudioTensor(torch.zeros(2,60), sr=1000); x[0,10] = 1.; x[1,10] = 1.; x[0,40] = 1.
    near = lambda db: {int(i) for i in ResizeSignal(5, min_energy=db)._starts(x, 5)}
    assert near(-2)==set(range(6,11)) and near(-4)==set(range(6,11))|set(range(36,41))  # half the power: -3 dB

def test_crops_follow_the_seed_and_draw_as_many_numbers_as_before():
    x = clip(3000, 1)
    def draws(t): random.seed(5); res = [t(x, split_idx=0) for _ in range(5)]; return res,random.random()
    (a,r),(b,s),(_,u) = draws(ResizeSignal(300, min_energy=-20)),draws(ResizeSignal(300, min_energy=-20)),draws(ResizeSignal(300))
    assert all(torch.equal(o, p) for o,p in zip(a, b)) and r==s==u

def test_quiet_windows_behind_loud_ones_are_told_apart():
    x = torch.zeros(1,200_000); x[0,:1000] = 1.; x[0,-1000:] = 1e-4
    p = _window_power(x, 500)
    assert (p[1000:-1500]==0).all() and abs(p[-1]/5e-6-1)<1e-4  # -80 dB, silence exactly 0

def test_min_energy_must_be_decibels_below_the_loudest():
    for v in (1, 20., -math.inf, math.nan, True, '-20'):
        with pytest.raises(ValueError, match='min_energy: expected dB relative to the loudest crop of a clip, such as -20, or None, got'): ResizeSignal(5, min_energy=v)

def test_an_older_pickle_crops_as_it_did():
    t = ResizeSignal(4); del t.__dict__['min_energy']
    x = AudioTensor(torch.arange(1.,13)[None], sr=1000)
    assert pickle.loads(pickle.dumps(t))(x, split_idx=1).tolist()==[[5,6,7,8]] and 'dB' not in t.name
    assert ResizeSignal(4, min_energy=-20).name=='ResizeSignal -- 4 ms, zeros, from -20 dB'

def test_no_real_crop_is_silent(esc10):
    df = pd.read_csv(esc10/'meta'/'esc10.csv')
    files = df[df.category.isin(['dog','sneezing','rooster'])].filename[:24]
    random.seed(0)
    anywhere,loud = [],[]
    for f in files:
        x = DownmixMono()(Resample(16000)(AudioTensor.create(esc10/'audio'/f)))
        power = lambda y: y.plain().double().square().mean()
        top = _window_power(x.plain(), 16000).max()/16000
        for t,res in ((ResizeSignal(1000), anywhere),(ResizeSignal(1000, min_energy=-20), loud)):
            res += [float(power(t(x, split_idx=0))/top) for _ in range(5)]
    assert min(loud)>.0099 and sum(v<.01 for v in anywhere)>len(anywhere)/5

# ---- AverageCrops

def to_mel(): return AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=256, n_mels=16))

def loaders(path, crop=None, y=None, item_tfms=(), batch_tfms=None, get_y=None, bs=7, **kw):
    block = DataBlock(blocks=(AudioBlock, y or CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=get_y or ColReader('category'),
                      splitter=CrossValidationSplitter(fold=1), item_tfms=[crop or ResizeSignal(200, min_energy=-20), *item_tfms],
                      batch_tfms=[AudioNormalize(), to_mel(), SpecNormalize()] if batch_tfms is None else batch_tfms)
    return block.dataloaders(pd.read_csv(path/'meta'/'synthetic.csv'), bs=bs, num_workers=0, **kw)

def net(n_out=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1,6,5), nn.BatchNorm2d(6), nn.ReLU(), AdaptiveAvgPool(1), Flatten(), nn.Linear(6,n_out))

def quiet(dls, model=None, **kw):
    learn = Learner(dls, model or net(), **kw)
    learn.remove_cbs([c for c in learn.cbs if type(c).__name__=='ProgressCallback'])
    return learn

def alone(dls, model, n, items=None):
    "What a network says to each crop of each clip of a loader fed by itself: (crop, clip, class)"
    ds,after = dls.valid_ds,dls.valid.after_item
    fs = list(after.fs); at = next(i for i,f in enumerate(fs) if isinstance(f, ResizeSignal)); res = []
    for i in range(len(ds)) if items is None else items:
        x,rows = ds[i][0],[]
        for f in fs[:at]: x = f(x, split_idx=1)
        k = int(fs[at].duration/1000*x.sr)
        if x.nsamples>k:
            starts = fs[at]._starts(x, k)
            xs = [x[:,(s:=int(starts[min(int(j/(n-1)*len(starts)), len(starts)-1)])):s+k] for j in range(n)]
        else: xs = [fs[at](x, split_idx=1)]*n
        for c in xs:
            for f in fs[at+1:]: c = f(c, split_idx=1)
            with torch.no_grad(): rows.append(model.eval()(dls.valid.after_batch(c[None]).plain())[0])
        res.append(torch.stack(rows))
    return torch.stack(res, 1)

@pytest.mark.parametrize('n', [2,3,4])
@pytest.mark.parametrize('where', ['batch','item','own'])
def test_predictions_are_the_mean_of_those_of_the_crops_fed_alone(synthetic, n, where):
    tfms = {'batch':((), None), 'item':((AudioNormalize(), to_mel()), [SpecNormalize()]), 'own':((to_mel(),), [])}[where]
    dls = loaders(synthetic, item_tfms=tfms[0], batch_tfms=tfms[1])
    learn = quiet(dls, cbs=AverageCrops(n))
    want = alone(dls, learn.model, n).softmax(-1).mean(0)
    got,targs = learn.get_preds()
    assert (got-want).abs().max()<1e-6 and torch.equal(targs, torch.stack([o[1] for o in dls.valid_ds]))  # other batches, float32

def test_validate_and_fit_measure_the_averaged_predictions(synthetic):
    dls = loaders(synthetic)
    learn = quiet(dls, metrics=accuracy, cbs=AverageCrops(3))
    p,targs = learn.get_preds()
    loss,acc = learn.validate()
    assert abs(loss-F.nll_loss(p.log(), targs).item())<1e-5 and abs(acc-accuracy(p, targs).item())<1e-6
    with learn.no_logging(): learn.fit(1, 1e-3)
    assert list(learn.recorder.values[-1][1:])==pytest.approx(list(learn.validate()), abs=1e-6)
    losses = learn.get_preds(with_loss=True)[-1]
    assert losses.shape==(16,) and losses.mean().item()==pytest.approx(learn.validate()[0], abs=1e-5)

def test_training_hears_one_random_crop_as_without_it(synthetic):
    def weights(*cbs):
        set_seed(3); dls = loaders(synthetic); set_seed(4)
        learn = quiet(dls, cbs=cbs)
        with learn.no_logging(): learn.fit(1, 1e-2)
        return torch.cat([p.detach().flatten() for p in learn.model.parameters()])
    assert torch.equal(weights(), weights(AverageCrops(3)))

def test_predict_and_a_loaded_learner_average_too(synthetic, tmp_path):
    dls = loaders(synthetic)
    learn = quiet(dls, metrics=accuracy, cbs=AverageCrops(3))
    want = learn.get_preds()[0]; learn.validate()
    file = synthetic/'audio'/dls.valid_ds.items.filename.iloc[3]
    learn.path = tmp_path; learn.export('l.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); loaded = load_learner(tmp_path/'l.pkl')
    for l in (learn,loaded):
        for item in (file,str(file)):
            label,i,p = l.predict(item)
            assert (p-want[3]).abs().max()<1e-6 and label==dls.vocab[want[3].argmax()]==dls.vocab[int(i)]
        x = l.predict(file, with_input=True)[0]
        assert isinstance(x, AudioSpectrogram) and x.ndim==3
        files = [synthetic/'audio'/f for f in dls.valid_ds.items.filename]
        assert (l.get_preds(dl=l.dls.test_dl(files, bs=5))[0]-want).abs().max()<1e-6
    assert loaded.average_crops.n_crops==3

def test_inputs_and_labels_stay_one_for_each_clip(synthetic):
    dls = loaders(synthetic)
    seen = []
    class Look(Callback):
        def before_batch(self): seen.append((tuple(self.xb[0].shape), self.xb[0].fn, len(self.yb[0])))
        def after_batch(self): seen.append((len(self.pred), len(self.yb[0]), len(self.xb[0])))
    learn = quiet(dls, cbs=[AverageCrops(3),Look()])
    x,p,y = learn.get_preds(with_input=True)
    one = torch.cat([b[0] for b in dls.valid])
    assert torch.allclose(x.as_subclass(torch.Tensor), one.as_subclass(torch.Tensor), atol=1e-5)  # the middle crop is the one heard alone
    assert [s[0][0] for s in seen[::2]]==[7,7,2]==[s[2] for s in seen[::2]] and all(len(fn)==len(set(fn)) for _,fn,_ in seen[::2])
    assert seen[1::2]==[(7,7,7),(7,7,7),(2,2,2)]

def test_pictures_and_interpretation_still_work(synthetic):
    dls = loaders(synthetic)
    learn = quiet(dls, cbs=AverageCrops(3))
    dls.show_batch(max_n=2); dls.valid.show_batch(max_n=2); learn.show_results(max_n=2)
    interp = ClassificationInterpretation.from_learner(learn)
    assert interp.confusion_matrix().sum()==16
    interp.plot_top_losses(2)
    assert torch.allclose(interp.losses, learn.get_preds(with_loss=True)[-1])

def test_augmented_predictions_can_be_averaged_on_top(synthetic):
    learn = quiet(loaders(synthetic), cbs=AverageCrops(2))
    p,_ = learn.tta(n=2)
    assert p.shape==(16,8)

def test_several_labels_average_their_sigmoids(synthetic):
    dls = loaders(synthetic, y=MultiCategoryBlock, get_y=lambda r: [r['category'], 'a' if r['fold']%2 else 'b'])
    learn = quiet(dls, net(dls.c), metrics=partial(accuracy_multi, thresh=.5), cbs=AverageCrops(3))
    want = alone(dls, learn.model, 3).sigmoid().mean(0)
    p,y = learn.get_preds()
    assert (p-want).abs().max()<1e-6 and isinstance(learn.loss_func, BCEWithLogitsLossFlat)
    assert learn.validate()[0]==pytest.approx(F.binary_cross_entropy(p, y.float()).item(), abs=1e-5)

def test_other_outputs_are_averaged_themselves(synthetic):
    dls = loaders(synthetic, y=RegressionBlock(1), get_y=ColReader('target'))
    learn = quiet(dls, net(1), cbs=AverageCrops(3))
    want = alone(dls, learn.model, 3).mean(0)
    assert (learn.get_preds()[0]-want).abs().max()<1e-6
    dls = loaders(synthetic)
    learn = quiet(dls, cbs=AverageCrops(3, mean_of='outputs'))
    assert (learn.get_preds()[0]-alone(dls, learn.model, 3).mean(0).softmax(-1)).abs().max()<1e-6

def test_the_loss_says_what_is_averaged():
    for f in (CrossEntropyLossFlat(), FocalLossFlat(), LabelSmoothingCrossEntropyFlat(), nn.CrossEntropyLoss(), nn.NLLLoss(), F.cross_entropy, partial(F.cross_entropy, reduction='none')):
        assert _mean_of(f)=='softmax', f
    for f in (BCEWithLogitsLossFlat(), nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits): assert _mean_of(f)=='sigmoid', f
    for f in (MSELossFlat(), nn.BCELoss(), lambda p,y: p.sum()): assert _mean_of(f)=='outputs', f

def test_averages_stay_finite_for_sure_networks():
    for v in (0., 50., 1000.):
        x = torch.tensor([[v,-v],[v,-v]]).half()
        for how in ('softmax','sigmoid'):
            y = _average(torch.stack([x,x]), how, -1)
            assert y.dtype==torch.float32 and torch.isfinite(y).all()
        assert torch.allclose(_average(torch.stack([x,x]), 'sigmoid'), x.float(), atol=1e-3)
    a,b = _averages([(torch.ones(2), [torch.zeros(2)]),(torch.zeros(2), [torch.ones(2)])], 'outputs', 1)
    assert a.tolist()==b[0].tolist()==[.5,.5]

def test_each_crop_is_an_item_of_its_own(synthetic):
    shapes = []
    class Loud(Transform):
        "In place, and by item"
        def encodes(self, x:AudioTensor): shapes.append(tuple(x.shape)); x.div_(x.plain().abs().max()+1e-9); return x
    dls = loaders(synthetic, item_tfms=[Loud()])
    learn = quiet(dls, cbs=AverageCrops(4)); shapes.clear()
    got = learn.get_preds()[0]
    assert set(shapes)=={(1,3200)} and len(shapes)==64
    want = alone(loaders(synthetic, item_tfms=[Transform(lambda x: x/(x.plain().abs().max()+1e-9) if isinstance(x, AudioTensor) else x)]), learn.model, 4).softmax(-1).mean(0)
    assert (got-want).abs().max()<1e-5  # each item normalized with other rounding

def test_statistics_are_those_of_the_one_crop(synthetic):
    set_seed(0); dls = loaders(synthetic)
    learn = quiet(dls, cbs=[AverageCrops(5),StatsCallback(progress=False)])
    want = collect_stats(dls)
    with learn.no_logging(): learn.fit(1)
    learn.validate()
    assert learn.stats.recorders[0].nobservations==64 and torch.equal(learn.stats.result.mean, want.mean) and torch.equal(collect_stats(dls).mean, want.mean)
    specs = [to_mel()(AudioNormalize()(_one(dls, x))) for x,_ in dls.train_ds]
    frames = torch.cat([s.plain().double()[...,~s.silent] for s in specs], -1)
    assert want.reduce('global').mean.item()==pytest.approx(frames.mean().item(), abs=1e-4)
def _one(dls, x):
    for f in dls.train.after_item.fs: x = f(x, split_idx=1)
    return x

def test_short_clips_workers_and_single_crops(synthetic):
    for pad in AudioPadType:
        dls = loaders(synthetic, ResizeSignal(850, pad), batch_tfms=[to_mel()])
        learn = quiet(dls, cbs=AverageCrops(3))
        p = learn.get_preds()[0]
        dl = dls.valid.new(num_workers=2)
        assert torch.isfinite(p).all() and (learn.get_preds(dl=dl)[0]-p).abs().max()<1e-6
    one,none = (quiet(dls, cbs=c).get_preds()[0] for c in (AverageCrops(1),None))
    assert (one-none).abs().max()<1e-6
    dls = loaders(synthetic, ResizeSignal(1500, AudioPadType.Zeros_After), batch_tfms=[to_mel()])
    many,none = (quiet(dls, cbs=c).get_preds()[0] for c in (AverageCrops(3),None))
    assert (many-none).abs().max()<1e-6  # a clip that is too short is the same three times

def test_batches_that_are_made_already_are_left_alone(synthetic):
    dls = loaders(synthetic)
    learn = quiet(dls, cbs=AverageCrops(3))
    b = dls.valid.one_batch()
    with torch.no_grad(): want = learn.model.eval()(b[0].plain()).softmax(-1)
    assert torch.allclose(learn.get_preds(dl=[b])[0], want, atol=1e-6)

def test_what_cannot_be_is_refused(synthetic):
    for n in (0,-1,1.5,True):
        with pytest.raises(ValueError, match='n: expected a whole number of at least 1'): AverageCrops(n)
    with pytest.raises(ValueError, match="mean_of: expected None or one of .*, got 'max'"): AverageCrops(3, 'max')
    dls = loaders(synthetic); learn = quiet(dls, cbs=AverageCrops(2))
    dls.valid.after_item.fs.clear()
    with pytest.raises(ValueError, match='AverageCrops: expected a ResizeSignal among the item transforms'): learn.validate()

def test_after_an_error_training_is_as_before(synthetic):
    dls = loaders(synthetic); learn = quiet(dls, cbs=AverageCrops(3))
    class Stop(Callback):
        def after_pred(self): raise RuntimeError('stop')
    with pytest.raises(RuntimeError): learn.validate(cbs=Stop())
    learn.remove_cbs([c for c in learn.cbs if isinstance(c, Stop)])
    with learn.no_logging(): learn.fit(1)
    assert learn.get_preds()[0].shape==(16,8)

def test_a_drift_monitor_counts_clips(synthetic):
    set_seed(0); dls = loaders(synthetic)
    mon = DriftMonitor(collect_stats(dls), window=1000)
    quiet(dls, cbs=[AverageCrops(5),mon]).get_preds()
    assert mon._now.nobservations==16

def test_real_clips_average_over_what_sounds(esc10):
    df = pd.read_csv(esc10/'meta'/'esc10.csv').groupby(['fold','category']).head(1)
    df = df[df.category.isin(['dog','rain','sneezing'])]
    block = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=esc10/'audio'), get_y=ColReader('category'),
                      splitter=CrossValidationSplitter(fold=1), item_tfms=ResizeSignal(2000, min_energy=-20), batch_tfms=[AudioNormalize(), to_mel(), SpecNormalize()])
    dls = block.dataloaders(df, bs=4, num_workers=0)
    learn = quiet(dls, net(3), metrics=accuracy, cbs=AverageCrops(5))
    with learn.no_logging(): learn.fit(1, 1e-3)
    want = alone(dls, learn.model, 5).softmax(-1).mean(0)
    assert (learn.get_preds()[0]-want).abs().max()<1e-6
    assert (learn.predict(esc10/'audio'/dls.valid_ds.items.filename.iloc[0])[2]-want[0]).abs().max()<1e-6

def test_half_precision_outputs_are_averaged_in_float32(synthetic):
    class Half(Callback):
        "As MixedPrecision does it, on a CPU"
        order = 10
        def before_batch(self): self.cast = torch.autocast('cpu', torch.bfloat16); self.cast.__enter__()
        def after_pred(self): self.dtype = self.pred.dtype
        def after_loss(self): self.cast.__exit__(None, None, None)
    half = Half()
    got,want = (quiet(loaders(synthetic), cbs=[AverageCrops(3),*c]).get_preds()[0] for c in ((half,),()))
    assert half.dtype==torch.float32 and 0<(got-want).abs().max()<.02  # bfloat16 keeps 8 bits
