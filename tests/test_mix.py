"Mixed clips, masks behind normalization: what the training sees, and what it does not"
import pickle

import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.data.all import CategoryBlock,ColReader,DataBlock,MultiCategoryBlock,Pipeline
from fastai.learner import load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import TensorCategory,TensorMultiCategory
from specnorm_fastai.all import *

def waves(*lengths, sr=8000, seed=0, channels=1):
    g = torch.Generator().manual_seed(seed)
    return torch.stack(PadAudio()([AudioTensor(torch.randn(channels, n, generator=g)*.1, sr=sr, fn=f'{i}.wav') for i,n in enumerate(lengths)]))
def seeded(f, *args, seed=0, **kw): torch.manual_seed(seed); return f(*args, **kw)
def a2s(): return AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=256, n_mels=32))

def dls_of(path, *tfms, multi=False, crop=None, bs=16):
    df = pd.read_csv(path/'meta'/'synthetic.csv').iloc[:64]
    y = MultiCategoryBlock if multi else CategoryBlock
    get_y = (lambda r: [r['category'],'even' if r['target']%2==0 else 'odd']) if multi else ColReader('category')
    return DataBlock(blocks=(AudioBlock(crop_signal_to=crop), y), get_x=ColReader('filename', pref=path/'audio'), get_y=get_y,
                     splitter=CrossValidationSplitter(fold=1), batch_tfms=list(tfms)).dataloaders(df, bs=bs, num_workers=0)
def learner(dls, **kw):
    import warnings
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='the clips have unequal'); return spec_learner(dls, 'small', **kw)
def fit(learn, n=1, **kw):
    with learn.no_bar(), learn.no_logging(): learn.fit(n, 1e-3, **kw)

# ---- functions

def test_the_level_follows_the_standard():
    # IEC 61672-1, curve A in dB; frequencies are the exact ones of third octaves
    for k,want in ((15,-39.4),(18,-26.2),(20,-19.1),(24,-8.6),(27,-3.2),(30,0.),(33,1.2),(36,1.0),(40,-2.5),(43,-9.3)):
        assert abs(20*a_weighting(torch.tensor(10**(k/10))).log10().item()-want)<.051  # the table has tenths
    assert a_weighting(torch.tensor(0.))==0

@pytest.mark.parametrize('sr', [8000,16000,44100])
def test_the_level_is_that_of_the_loudest_tenth_of_a_second(sr):
    t = torch.arange(sr)/sr
    x = .5*torch.sin(2*torch.pi*1000*t)
    burst = torch.where(t<.4, .01*x, torch.where(t<.7, x, 0.))
    level = sound_level(torch.stack([x,.1*x,burst,0*x])[:,None], sr)
    assert torch.allclose(level, torch.tensor([-9.03,-29.03,-9.03,-100.]), atol=.02)
    assert torch.allclose(sound_level(x.expand(1,3,-1), sr), level[:1])
    assert sound_level(torch.zeros(2,1,7), sr).tolist()==[-100,-100] and sound_level(x[None,None,:60], sr).isfinite().all()

def test_between_class_weights_are_the_papers():
    x = waves(8000, 8000, sr=8000); x = AudioTensor(torch.cat([x[:1].plain(), 5*x[1:].plain()]), sr=8000)
    r = torch.tensor([.3,.8])
    got = mix_signals(x, torch.tensor([1,0]), r, True).plain()
    g = sound_level(x.plain(), 8000)
    for i,j in ((0,1),(1,0)):
        p = 1/(1+10**((g[i]-g[j])/20)*(1-r[i])/r[i])
        want = (p*x[i]+(1-p)*x[j]).plain()/(p**2+(1-p)**2).sqrt()
        torch.testing.assert_close(got[i], want)

@pytest.mark.parametrize('between', [False,True])
@pytest.mark.parametrize('dtype', [torch.float32,torch.float64,torch.float16])
def test_a_mix_is_as_long_as_the_longer(between, dtype):
    x = waves(800, 500, 300, 500, channels=2).to(dtype)
    was = x.plain().clone()
    y = mix_signals(x, torch.tensor([2,2,1,3]), torch.tensor([.7,.6,.5,1.]), between)
    assert y.lengths.tolist()==[800,500,500,500] and y.dtype==dtype and y.sr==8000 and y.fn==x.fn
    assert torch.equal(x.plain(), was) and (y.plain()[1:,:,500:]==0).all() and torch.equal(y[3].plain(), x[3].plain())
    assert (y.plain()[2,:,300:500]!=0).any()
    whole = AudioTensor(x.plain().clone(), sr=8000)
    assert mix_signals(whole, torch.arange(4), torch.full((4,), .5)).lengths is None

def test_what_is_in_the_padding_takes_no_part():
    x = waves(800, 500)
    dirty = x.clone(); dirty.plain()[1,:,500:] = 7.
    a,b = (mix_signals(o, torch.tensor([1,0]), torch.tensor([.7,1.]), True) for o in (x,dirty))
    assert torch.equal(a[0].plain(), b[0].plain()) and (b[1].plain()[:,500:]==7).all() and b.lengths.tolist()==[800,500]

def test_silence_mixes_without_nan():
    x = AudioTensor(torch.cat([torch.zeros(1,1,8000),waves(8000).plain()]), sr=8000)
    for r in (0.,.5,1.): assert mix_signals(x, torch.tensor([1,0]), torch.full((2,), r), True).isfinite().all()
    assert (mix_signals(x*0, torch.tensor([1,0]), torch.full((2,), .5), True)==0).all()

# ---- the transform

Y = TensorCategory(torch.tensor([0,1,0,2,2,1]))
def test_only_training_is_mixed_and_by_the_seed():
    x,t = waves(*[800]*6),SignalMixUp()
    b = (x,Y)
    for f in (lambda: t(b, split_idx=1), lambda: Pipeline([t])(b)):
        state = torch.get_rng_state(); got = f()
        assert got[0] is x and got[1] is Y and torch.equal(torch.get_rng_state(), state)
    (a,y),(a2,y2),(a3,_) = seeded(t, b),seeded(t, b, split_idx=0),seeded(t, b, seed=1)
    assert torch.equal(a.plain(), a2.plain()) and not torch.equal(a.plain(), a3.plain()) and not torch.equal(a.plain(), x.plain())
    assert isinstance(y, TensorCategory) and torch.equal(y, Y) and not hasattr(Y, 'mix') and torch.equal(y.mix['share'], y2.mix['share'])
    torch.testing.assert_close(a.plain(), mix_signals(x, y.mix['partner'], y.mix['share']).plain())
    assert (y.mix['share']>=.5).all() and sorted(y.mix['partner'].tolist())==list(range(6))

def test_between_class_partners_are_of_another_class():
    x,t = waves(*[800]*6),SignalMixUp(between_class=True)
    seen = [set() for _ in Y]
    for i in range(200):
        mix = t((x,Y))[1].mix
        assert (Y[mix['partner']]!=Y).all()
        for s,p in zip(seen, mix['partner'].tolist()): s.add(p)
    assert seen==[set((Y!=c).nonzero().flatten().tolist()) for c in Y]  # each of them
    same = TensorCategory(torch.zeros(6, dtype=torch.long))
    got,y = t((x,same))
    assert torch.equal(got.plain(), x.plain()) and (y.mix['share']==1).all()

@pytest.mark.parametrize('between,alpha,mean,var', [(False,None,None,None), (True,None,.5,1/12), (True,4.,.5,1/36)])
def test_shares_have_their_distribution(between, alpha, mean, var):
    torch.manual_seed(0)
    y = torch.arange(4000)
    share = SignalMixUp(alpha, between)._draw(4000, y)[1]
    if mean is None:
        b = torch.distributions.Beta(.4, .4).sample((200000,)); b = torch.maximum(b, 1-b)
        mean,var = b.mean(),b.var()
    assert abs(share.mean()-mean)<.02 and abs(share.var()-var)<.006  # five standard errors

def test_wrong_places_and_arguments_are_refused():
    for bad in (0, -1., 'x', True, float('inf')):
        with pytest.raises(ValueError, match='alpha: expected a number above 0'): SignalMixUp(bad)
    with pytest.raises(ValueError, match='between_class: expected True or False'): SignalMixUp(between_class=1)
    with pytest.raises(ValueError, match='Put it into batch_tfms'): SignalMixUp()((waves(800)[0],TensorCategory(1)))
    with pytest.raises(ValueError, match='got no target'): SignalMixUp()(waves(800,800))
    x = torch.ones(2,1,8)
    assert SignalMixUp()(x) is x
    again = pickle.loads(pickle.dumps(SignalMixUp(1., True)))
    assert again.alpha==1. and again.between_class and 'alpha' in repr(again)
    assert SignalMixUp.augments

# ---- the loss

class Seen(Callback):
    "Loss of each train batch, and that computed by hand"
    order,run_valid = 20,False
    def __init__(self): self.rows = []
    def after_loss(self):
        m,y,p = self.learn.mix_loss,self.y,self.pred.detach()
        self.rows.append((self.loss.item(), m.lam, p, y.detach(), m.yb1[0]))

@pytest.mark.parametrize('between', [False,True])
def test_the_loss_is_mixed_as_the_waveforms_were(synthetic, between):
    dls = dls_of(synthetic, AudioNormalize(), SignalMixUp(between_class=between), a2s(), SpecNormalize())
    learn,seen = learner(dls),Seen()
    fit(learn, cbs=seen)
    ce = torch.nn.functional.cross_entropy
    for loss,lam,p,y,y1 in seen.rows:
        p,y,y1 = p.as_subclass(torch.Tensor),y.as_subclass(torch.Tensor),y1.as_subclass(torch.Tensor)
        want = (lam*ce(p, y, reduction='none')+(1-lam)*ce(p, y1, reduction='none')).mean()
        assert abs(loss-want)<1e-5 and (not between or ((y!=y1)|(lam==1)).all())
        soft = lam[:,None]*torch.nn.functional.one_hot(y, 8)+(1-lam)[:,None]*torch.nn.functional.one_hot(y1, 8)
        p = p.clone().requires_grad_()  # the paper's loss has the same gradients
        kl = torch.nn.functional.kl_div(p.log_softmax(1), soft, reduction='batchmean')
        mixed = (lam*ce(p, y, reduction='none')+(1-lam)*ce(p, y1, reduction='none')).mean()
        a,b = (torch.autograd.grad(o, p)[0] for o in (kl,mixed))
        torch.testing.assert_close(a, b)
    assert len(seen.rows)==3 and isinstance(learn.loss_func, CrossEntropyLossFlat)

def test_several_targets_are_mixed_themselves(synthetic):
    dls = dls_of(synthetic, AudioNormalize(), SignalMixUp(), a2s(), SpecNormalize(), multi=True)
    learn,seen = learner(dls),Seen()
    fit(learn, cbs=seen)
    assert all(((y>0)&(y<1)).any() and y.max()<=1 for *_,y,_ in seen.rows)
    with pytest.raises(TypeError, match="loss_func: expected one of fastai's"):
        fit(learner(dls_of(synthetic, SignalMixUp(), a2s()), loss_func=torch.nn.CrossEntropyLoss()))

def test_a_learner_gets_the_callback_once_and_only_where_there_is_a_mix(synthetic):
    mixed,plain = dls_of(synthetic, AudioNormalize(), SignalMixUp(), a2s()),dls_of(synthetic, AudioNormalize(), a2s())
    count = lambda learn: sum(isinstance(c, MixLossCallback) for c in learn.cbs)
    assert [count(learner(d, **kw)) for d,kw in ((mixed,{}),(plain,{}),(mixed,dict(cbs=MixLossCallback())))]==[1,0,1]
    with pytest.raises(ValueError, match='Put SignalMixUp.. into batch_tfms'): fit(learner(plain, cbs=MixLossCallback()))
    with pytest.raises(ValueError, match='Put SignalMixUp.. into batch_tfms, before AudioToSpec'): fit(learner(dls_of(synthetic, a2s(), SignalMixUp())))
    with pytest.raises(ValueError, match='cannot be mixed twice'): fit(learner(mixed, cbs=MixUp()))

def test_an_interrupted_training_can_go_on(synthetic):
    class Stop(Callback):
        def after_pred(self): raise KeyboardInterrupt
    learn = learner(dls_of(synthetic, AudioNormalize(), SignalMixUp(), a2s()))
    with pytest.raises(KeyboardInterrupt), learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=(stop:=Stop()))
    learn.remove_cb(stop); fit(learn)
    assert isinstance(learn.loss_func, CrossEntropyLossFlat)

def test_validation_statistics_and_export_know_no_mix(synthetic, tmp_path):
    plain,mixed = (dls_of(synthetic, AudioNormalize(), *t, a2s(), SpecNormalize(), crop=500) for t in ((),(SignalMixUp(),)))
    a,b = (next(t for t in d.after_batch.fs if isinstance(t, SpecNormalize)) for d in (plain,mixed))
    assert torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)
    for (x,_),(y,t) in zip(plain.valid, mixed.valid, strict=True): assert torch.equal(x.plain(), y.plain()) and not hasattr(t, 'mix')
    learn = learner(mixed, path=tmp_path)
    fit(learn)
    with learn.no_bar(): probs = learn.get_preds()[0]
    learn.export('m.pkl')
    with (again:=load_learner(tmp_path/'m.pkl')).no_bar(): p = again.predict(synthetic/'audio'/mixed.valid_ds.items.filename.iloc[1])[2]
    assert torch.allclose(p, probs[1], atol=1e-5)
    mixed.show_batch(max_n=2)

# ---- fastai's MixUp of spectrograms

def test_fastais_mixup_keeps_what_a_spectrogram_knows(synthetic):
    class Look(Callback):
        order,run_valid = -1,False
        def before_batch(self): self.was = self.x
    class After(Callback):
        order,run_valid,n = 5,False,0
        def before_batch(self):
            x,w,lam = self.x,self.look.was,self.mix_up.lam
            assert type(x) is AudioSpectrogram and x.settings==w.settings and x.units=='std'
            assert (x.lengths>=w.lengths).all() and set(x.lengths.tolist())<=set(w.lengths.tolist()) and not (x.silent & ~w.silent).any()
            back = (x.plain()-lam[:,None,None,None]*w.plain())/(1-lam).clamp(min=1e-9)[:,None,None,None]  # the partner
            for i in (lam<.9).nonzero().flatten().tolist():
                j = (w.plain()-back[i]).abs().amax((1,2,3)).argmin()
                assert (w.plain()[j]-back[i]).abs().max()<1e-3
                assert x.lengths[i]==max(w.lengths[i], w.lengths[j]) and torch.equal(x.silent[i], w.silent[i]&w.silent[j])
                After.n += 1
    dls = dls_of(synthetic, AudioNormalize(), a2s(), SpecNormalize())
    fit(learner(dls, cbs=[MixUp(.4), Look(), After()]))
    assert After.n>5

# ---- masks behind normalization

def masked_in(x): return (x.plain()==0).all(-1).any(), (x.plain()==0).all(-2).any()

@pytest.mark.parametrize('first', [True,False])
@pytest.mark.parametrize('norm', [lambda: SpecNormalize(), lambda: SpecNormalize(axes='frequency'), lambda: ItemNormalize()])
def test_masks_stand_behind_normalization_wherever_they_are_listed(synthetic, first, norm):
    masks = [SpecAugment(freq=8), MaskFreq(1, 4, val=0.), MaskTime(1, 5, val=0.)]
    rest = [AudioNormalize(), a2s(), norm()]
    plain,dls = dls_of(synthetic, *rest),dls_of(synthetic, *(masks+rest if first else rest+masks))
    fs = [type(f).__name__ for f in dls.after_batch.fs]
    assert max(fs.index(type(rest[0]).__name__), fs.index('AudioToSpec'), fs.index(type(rest[2]).__name__))<min(fs.index(type(m).__name__) for m in masks)
    if isinstance(rest[2], SpecNormalize):
        a,b = (next(t for t in d.after_batch.fs if isinstance(t, SpecNormalize)) for d in (plain,dls))
        assert torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)
    clean,x = (next(iter(d.train.new(shuffle=False)))[0] for d in (plain,dls))
    hit = x.plain()!=clean.plain()
    assert hit.any() and (x.plain()[hit]==0).all() and not (clean.plain()==0).all(-1).any()
    for (u,_),(v,_) in zip(plain.valid, dls.valid, strict=True): assert torch.equal(u.plain(), v.plain())
    for o,n in zip(x.plain(), x.lengths.tolist()): assert (o[...,:n]==0).all(-1).sum()>=4 and (o==0).all(-2).sum()>=5

# ---- SpecAugment

def a_spec(*lengths, rows=80):
    g = torch.Generator().manual_seed(0)
    return AudioSpectrogram.create(torch.rand(len(lengths), 2, rows, max(lengths), generator=g)+1, lengths=list(lengths), settings={'units':'std'})

def test_sizes_are_even_up_to_their_greatest():
    t,x = SpecAugment(freq=5, n_freq=1, time=6, n_time=1, time_pct=1.),a_spec(*[40]*2000, rows=10)
    y = seeded(t, x).plain()[:,0]==0
    rows,frames = y.all(-1).sum(-1),y.all(-2).sum(-1)
    for n,top in ((rows,5),(frames,6)):
        share = torch.bincount(n, minlength=top+1)/2000
        assert len(share)==top+1 and ((share-1/(top+1)).abs()<.045).all()  # five standard errors

def test_time_masks_hide_a_part_of_the_real_frames_at_most():
    x = a_spec(200, 30, 10, 4)
    for seed in range(30):
        y = seeded(SpecAugment(freq=0, n_time=1), x, seed=seed).plain()
        hidden = (y==0).all(-2).all(1)
        assert (hidden.sum(1)<=torch.tensor([40,6,2,0])).all()
        for o,n in zip(hidden, x.lengths): assert not o[n:].any()
    same = SpecAugment(n_freq=0, n_time=0)(x)
    assert torch.equal(same.plain(), x.plain())

def test_policies_are_the_papers():
    got = {k:(t.freq,t.n_freq,t.time,t.n_time,t.time_pct) for k in ('LB','LD','SM','SS') for t in [SpecAugment.from_policy(k)]}
    assert got==dict(LB=(27,1,100,1,1.), LD=(27,2,100,2,1.), SM=(15,2,70,2,.2), SS=(27,2,70,2,.2))
    assert SpecAugment.from_policy('LD', freq=8).freq==8
    with pytest.raises(ValueError, match="name: expected one of .*got 'XX'"): SpecAugment.from_policy('XX')

def test_masks_of_decibels_are_warned_of_and_arguments_checked():
    x = a2s()(waves(4000, 4000, sr=16000))
    with pytest.warns(UserWarning, match='in dB is no mean but loud'): SpecAugment(freq=8)(x)
    import warnings
    with warnings.catch_warnings(): warnings.simplefilter('error'); SpecAugment(freq=8, val=None)(x); SpecAugment(freq=8, val=-100.)(x)
    for bad in (dict(freq=-1), dict(time=1.5), dict(time_pct=2), dict(val='x'), dict(n_freq=-1), dict(n_time=True)):
        with pytest.raises(ValueError, match=f'{next(iter(bad))}: expected'): SpecAugment(**bad)
    with pytest.raises(ValueError, match='freq: masks of up to 40 rows do not fit the 32 rows'): SpecAugment(freq=40)(x)

def test_spec_augment_keeps_to_the_house_rules():
    t,x = SpecAugment(freq=8),a_spec(60, 40)
    assert t.augments and t.order==100 and t(x, split_idx=1) is x
    a,b = seeded(t, x),seeded(t, x)
    assert torch.equal(a.plain(), b.plain()) and a.lengths.tolist()==[60,40]
    assert torch.equal(seeded(t, x[0])[None].plain(), seeded(t, x[:1]).plain())
    assert torch.equal(a.plain()[1,...,40:], x.plain()[1,...,40:])
    assert pickle.loads(pickle.dumps(t)).freq==8

def test_an_interrupted_training_leaves_a_learner_that_predicts(synthetic):
    class Stop(Callback):
        def after_batch(self):
            if self.training: raise KeyboardInterrupt
    dls = dls_of(synthetic, AudioNormalize(), SignalMixUp(), a2s(), crop=500)
    learn = learner(dls)
    with pytest.raises(KeyboardInterrupt): fit(learn, cbs=Stop())
    with learn.no_bar(): probs,_ = learn.get_preds()
    assert torch.allclose(probs.sum(1), torch.ones(len(probs)), atol=1e-5)
    with learn.no_bar(): label,_,p = learn.predict(dls.valid_ds.items.iloc[0])
    assert label in dls.vocab and abs(float(p.sum())-1)<1e-5
