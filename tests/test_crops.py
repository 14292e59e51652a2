"Crops that hold sound, and several of them at validation"
import math,pickle,random
import numpy as np
import pytest, torch
from hypothesis import given,strategies as st

from specnorm_fastai.core import AudioTensor
from specnorm_fastai.data import AudioPadType,DownmixMono,Resample,ResizeSignal,_window_power

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
    import pandas as pd
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
