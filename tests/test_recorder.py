"The recorder: every element once, in any dtype, on devices without float64, and what it refuses"
import copy,math,pickle
from fractions import Fraction
import numpy as np, pytest, torch
from hypothesis import given,settings,strategies as st
from hypothesis.extra import numpy as hnp
from specnorm_fastai import recorder
from specnorm_fastai.core import AudioSpectrogram
from specnorm_fastai.recorder import StatsRecorder
from specnorm_fastai.specstats import SpecStats

S = dict(sr=16000, n_fft=8, win_length=8, hop_length=4, mel=False, to_db=True)
dtypes = [torch.float16,torch.bfloat16,torch.float32,torch.float64]

def _np(x): return x.detach().as_subclass(torch.Tensor).double().numpy()
def _state(rec):
    "All that a recorder holds, to compare"
    flat = lambda v: [flat(o) for o in v] if isinstance(v, (tuple,list)) else v.tolist() if isinstance(v, torch.Tensor) else v
    return {k:flat(v) for k,v in rec.__getstate__().items()}

@st.composite
def _batches(draw):
    "A few batches of one shape (channels, frequencies), with masks, lengths and groups or without"
    c,f,seed = draw(st.integers(1,2)),draw(st.integers(1,3)),draw(st.integers(0,9999))
    rng,res = np.random.default_rng(seed),[]
    off,scale,dt = draw(st.sampled_from([0.,-40.,1e3])),draw(st.sampled_from([1e-2,1.,20.])),draw(st.sampled_from(dtypes))
    for _ in range(draw(st.integers(1,3))):
        b,t = draw(st.integers(0,4)),draw(st.integers(1,7))
        x = torch.tensor(rng.normal(size=(b,c,f,t))*scale+off).to(dt)
        mask = draw(st.none() | hnp.arrays(bool, (b,t)))
        lengths = draw(st.none() | st.lists(st.integers(0,t), min_size=b, max_size=b))
        groups = draw(st.lists(st.integers(0,9), min_size=b, max_size=b))
        res.append((x,mask,lengths,groups))
    return res

def _counts(x, mask, lengths):
    b,t = x.shape[0],x.shape[-1]
    real = np.ones((b,t), bool) if lengths is None else np.arange(t)<np.array(lengths, dtype=int).reshape(b,1)
    return real,real if mask is None else real & mask

@given(bs=_batches(), given_groups=st.booleans(), units=st.sampled_from(['dB',None]))
def test_masks_lengths_groups_and_dtypes_agree_with_numpy(bs, given_groups, units):
    rec = StatsRecorder((0,3), quantiles=True, groups=4)
    frames,rows,loudest,n = dict(counted=0, silent=0, padding=0, bad=0),[],[[] for _ in range(4)],0
    for x,mask,lengths,groups in bs:
        y = AudioSpectrogram.create(x, settings=S) if units else x
        rec.update(y, mask=None if mask is None else torch.tensor(mask), lengths=None if lengths is None else torch.tensor(lengths, dtype=torch.long), groups=groups if given_groups else None)
        real,counts = _counts(x, mask, lengths)
        frames['counted'] += int(counts.sum()); frames['silent'] += int((real&~counts).sum()); frames['padding'] += int((~real).sum())
        for i in range(len(x)):
            k = (groups[i] if given_groups else n)%4; n += 1
            rows.append((k, _np(x)[i][...,counts[i]]))
            if counts[i].any(): loudest[k].append(rows[-1][1].max())
    assert rec.nobservations==n and rec.frames==frames
    if not frames['counted']:
        with pytest.raises(ValueError, match='seen no frames'): rec.mean
        return
    every = np.concatenate([r for _,r in rows], -1)
    big = np.abs(every).max()
    # float64 sums of a few dozen numbers: some 1e-16 of the largest; a difference from the mean loses that much of the offset
    assert np.allclose(rec.mean[0,...,0], every.mean(-1), rtol=0, atol=1e-14*big) and np.allclose(rec.std[0,...,0], every.std(-1), rtol=1e-11, atol=1e-14*big)
    assert (rec.count==frames['counted']).all()
    s = SpecStats.from_recorder(rec)
    assert np.array_equal(s.min[0,...,0], every.min(-1)) and np.array_equal(s.max[0,...,0], every.max(-1))
    assert (s._extra[2].sum(-1)==frames['counted']).all()
    for k in range(4):  # groups hold what numpy finds in their clips, and the moments of the loudest value of each
        n_k,mean,m2 = (v[k].item() for v in s._peak)
        assert n_k==len(loudest[k]) and (not n_k or np.isclose(mean, np.mean(loudest[k]), rtol=0, atol=1e-14*big) and np.isclose(m2, np.var(loudest[k])*n_k, rtol=1e-11, atol=1e-13*big))
        own = np.concatenate([np.zeros((*every.shape[:2],0)), *[r for j,r in rows if j==k]], -1)
        n_k,mean,m2 = (v[k].numpy() for v in s._table)
        assert (n_k==own.shape[-1]).all()
        if own.shape[-1]: assert np.allclose(mean, own.mean(-1), rtol=0, atol=1e-14*big) and np.allclose(m2, own.var(-1)*own.shape[-1], rtol=1e-11, atol=1e-13*big)

@given(bs=_batches(), red=st.sampled_from(['global','frequency',(0,3),(0,1,2,3)]), ddof=st.integers(0,1))
def test_every_choice_of_axes_agrees_with_numpy(bs, red, ddof):
    rec,xs = StatsRecorder(red, ddof),[]
    for x,mask,lengths,_ in bs:
        rec.update(x, mask=None if mask is None else torch.tensor(mask), lengths=lengths)
        xs.append(_np(x).transpose(0,3,1,2)[_counts(x,mask,lengths)[1]])
    every = np.concatenate(xs)[...,None]  # (frame, channel, freq, 1)
    n = every.size//np.prod([every.shape[d] for d in (1,2) if d not in rec.red_dims], dtype=int)
    if len(every)==0 or n<=ddof: return
    dims,big = tuple(d for d in (0,1,2) if d in rec.red_dims),np.abs(every).max()
    assert rec.mean.shape==rec.std.shape==every.mean(dims, keepdims=True).shape and (rec.count==n).all()
    assert np.allclose(rec.mean, every.mean(dims, keepdims=True), rtol=0, atol=1e-14*big)
    assert np.allclose(rec.std, every.std(dims, keepdims=True, ddof=ddof), rtol=1e-11, atol=1e-14*big)

# --- NaN and Inf

BAD = st.lists(st.tuples(st.integers(0,3), st.integers(0,1), st.integers(0,2), st.integers(0,5), st.sampled_from([math.nan,math.inf,-math.inf])), min_size=1, max_size=6)

@given(bad=BAD, mask=st.none()|hnp.arrays(bool,(4,6)), dtype=st.sampled_from(dtypes), both=st.booleans(), seed=st.integers(0,99))
def test_skipping_leaves_out_bad_frames_that_count_and_no_others(bad, mask, dtype, both, seed):
    x = torch.tensor(np.random.default_rng(seed).normal(size=(4,2,3,6))*20-40).to(dtype)
    for *at,v in bad: x[tuple(at)] = v
    if both: x[0,0,0,0],x[0,1,2,0] = math.inf,-math.inf  # which cancel in a sum
    is_bad = ~np.isfinite(_np(x)).all((1,2))
    given_ = np.ones((4,6), bool) if mask is None else mask
    counts = given_ & ~is_bad
    fn = tuple(f'{i}.wav' for i in range(4))
    rec = StatsRecorder('frequency', quantiles=True, groups=2, on_bad='skip')
    before = x.clone()
    rec.update(AudioSpectrogram.create(x, settings=S, fn=fn), mask=None if mask is None else torch.tensor(mask))
    assert torch.equal(x.nan_to_num(7.), before.nan_to_num(7.))  # the batch stays as it was
    lost = (given_ & is_bad).sum(1)
    assert rec.bad_files=={fn[i]:int(k) for i,k in enumerate(lost) if k}
    assert rec.frames==dict(counted=int(counts.sum()), silent=int((~given_).sum()), padding=0, bad=int(lost.sum()))
    if not counts.any(): return
    good = _np(x).transpose(0,3,1,2)[counts]
    assert np.allclose(rec.mean.flatten(), good.mean((0,1)), rtol=0, atol=1e-12) and np.allclose(rec.std.flatten(), good.std((0,1)), rtol=1e-10, atol=1e-12)
    s = SpecStats.from_recorder(rec)
    assert s.min.min().item()==good.min() and s.max.max().item()==good.max()
    assert s._extra[2].sum().item()==good.size and s.provenance.get('bad_files',{})==rec.bad_files

@given(bad=BAD, mask=st.none()|hnp.arrays(bool,(4,6)), seen=st.booleans())
def test_raising_names_the_first_bad_clip_and_changes_nothing(bad, mask, seen):
    x = torch.randn(4,2,3,6)
    for *at,v in bad: x[tuple(at)] = v
    counted = ~np.isfinite(x.numpy()).all((1,2)) & (True if mask is None else mask)
    rec = StatsRecorder((0,3), quantiles=True, groups=3)
    if seen: rec.update(torch.randn(3,2,3,5))
    was = _state(rec)
    go = lambda: rec.update(x, mask=None if mask is None else torch.tensor(mask))
    if not counted.any(): go(); assert rec.frames['bad']==0; return
    with pytest.raises(ValueError, match=f'NaN or Inf in item {int(counted.any(1).argmax())} of the batch'): go()
    assert _state(rec)==was

def test_bad_clips_are_named_by_file_or_by_their_place():
    x = torch.randn(3,1,2,5); x[1,0,0,2] = math.nan; x[2,0,1,:2] = math.inf
    rec = StatsRecorder(on_bad='skip')
    rec.update(torch.randn(4,1,2,5)); rec.update(x)
    assert rec.bad_files=={'item 5':1, 'item 6':2}
    known = StatsRecorder(on_bad='skip')
    for _ in range(2): known.update(AudioSpectrogram.create(x, settings=S, fn=('a.wav',None,'c.wav')))
    assert known.bad_files=={'item 1':1, 'c.wav':4, 'item 4':1}
    assert '6 frames bad' in repr(known)
    with pytest.raises(ValueError, match='NaN or Inf in c.wav'): StatsRecorder().update(AudioSpectrogram.create(x[2:], settings=S, fn=('c.wav',)))

@pytest.mark.parametrize('kw,msg', [(dict(mask=torch.ones(2,8,dtype=torch.bool)),'mask: expected shape'), (dict(mask=torch.ones(2,9)),'mask: expected bool'), (dict(mask='silence'),'frame_mask'),
    (dict(lengths=[1]),'lengths: expected shape'), (dict(lengths=[0,10]),'lengths: expected 0 to 9'), (dict(groups=[0]),'groups: expected 2 whole'), (dict(groups=[0.,1.]),'groups: expected 2 whole')])
def test_arguments_that_do_not_fit_are_refused_and_change_nothing(kw, msg):
    rec = StatsRecorder(groups=4, quantiles=True, on_bad='skip'); rec.update(torch.randn(2,1,4,9))
    was,x = _state(rec),torch.randn(2,1,4,9); x[0,0,0,0] = math.nan
    with pytest.raises((ValueError,TypeError), match=msg): rec.update(x, **kw)
    assert _state(rec)==was
    with pytest.raises(TypeError, match='floating point'): rec.update(torch.ones(2,1,4,9, dtype=torch.long))

@pytest.mark.parametrize('kw', [dict(groups=1), dict(groups=-2), dict(groups=True), dict(groups=2.), dict(ddof=True), dict(ddof=.5), dict(on_bad='warn')])
def test_bad_settings_of_a_recorder_are_refused(kw):
    with pytest.raises(ValueError, match=f'{list(kw)[0]}: expected'): StatsRecorder(**kw)

# --- devices without float64

@pytest.mark.parametrize('mean,std', [(0.,1.), (-40.,20.), (1e4,1.), (1e6,10.), (1e-8,1e-9)])
@pytest.mark.parametrize('masked', [False,True])
def test_float32_devices_keep_the_digits_that_matter(mean, std, masked, monkeypatch):
    """Against numpy in float64. Mean 1e4, std 1: measured relative errors 1.1e-15 and 2.5e-8 (float64: 2e-16 and 8e-15; one pass in float32: 1e-7, and
    a variance of -8). At worst here 9e-9 std of the mean, 3e-8 of the deviation: deviations are rounded to float32, 6e-8"""
    gen,cut = torch.Generator().manual_seed(0),((0,2),(2,3),(3,6))
    x = torch.randn(6,2,3,4000, generator=gen)*std+mean
    mask = torch.rand(6,4000, generator=gen)<.6 if masked else None
    monkeypatch.setattr(recorder, '_has_float64', lambda device: False)
    rec = StatsRecorder((0,3), quantiles=True, groups=3)
    for i,j in cut: rec.update(x[i:j], mask=None if mask is None else mask[i:j])
    assert all(v.dtype==torch.float64 for v in rec._table)
    every = _np(x).transpose(0,3,1,2)[slice(None) if mask is None else mask.numpy()].reshape(-1,2,3)
    m,s = every.mean(0),every.std(0)
    assert np.abs(rec.mean[0,...,0].numpy()-m).max()<3e-8*std+1e-14*abs(mean) and np.abs(rec.std[0,...,0].numpy()/s-1).max()<1e-7
    monkeypatch.undo()
    exact = StatsRecorder((0,3), quantiles=True, groups=3)
    for i,j in cut: exact.update(x[i:j], mask=None if mask is None else mask[i:j])
    assert torch.equal(rec.count, exact.count) and all(torch.equal(a, b) for a,b in zip(rec._extra, exact._extra)) and rec.frames==exact.frames

@given(bs=_batches())
@settings(max_examples=30)
def test_float32_devices_agree_on_any_masks_and_dtypes(bs):
    mp = pytest.MonkeyPatch()
    try:
        mp.setattr(recorder, '_has_float64', lambda device: False)
        rec,ref = StatsRecorder((0,3), groups=3),StatsRecorder((0,3), groups=3)
        for r in (rec,ref):
            for x,mask,lengths,groups in bs: r.update(x.float(), mask=None if mask is None else torch.tensor(mask), lengths=lengths, groups=groups)
            mp.undo()
    finally: mp.undo()
    if not ref.frames['counted']: return
    big = max(x.abs().max().item() for x,*_ in bs if x.numel())
    assert rec.frames==ref.frames and torch.equal(rec._table[0], ref._table[0]) and all(torch.equal(a, b) for a,b in zip(rec._peak, ref._peak))
    # of a few frames roundings do not average out: 6e-8 of a deviation each, or of an offset that is no float32 number
    assert torch.allclose(rec.mean, ref.mean, rtol=0, atol=2e-7*big) and torch.allclose(rec.std, ref.std, rtol=1e-6, atol=2e-7*big)

# --- merging

def _rec(x, groups=None, **kw):
    r = StatsRecorder((0,3), **{**dict(quantiles=True, groups=5, on_bad='skip'), **kw})
    r.update(x, groups=groups)
    return r

@given(sizes=st.lists(st.integers(1,4), min_size=2, max_size=5), order=st.randoms(use_true_random=False), seed=st.integers(0,99))
def test_merged_parts_hold_what_one_recorder_of_all_holds(sizes, order, seed):
    rng = np.random.default_rng(seed); n = sum(sizes)
    x = rng.normal(size=(n,2,3,5))*9-30; x[rng.random(x.shape)<.01] = np.nan
    x,g,cut = torch.tensor(x),torch.tensor(rng.integers(0,20,n)),np.cumsum([0,*sizes])
    fn = tuple(f'{i}.wav' for i in range(n))
    part = lambda a,b: _rec(AudioSpectrogram.create(x[a:b], settings=S, fn=fn[a:b]), g[a:b])
    parts,whole = [part(a,b) for a,b in zip(cut[:-1],cut[1:])],part(0,n)
    order.shuffle(parts)
    while len(parts)>1: i = order.randrange(len(parts)-1); parts[i:i+2] = [parts[i]+parts[i+1]]
    one = parts[0]
    assert (one.nobservations,one.frames,one.bad_files,one._made)==(whole.nobservations,whole.frames,whole.bad_files,whole._made)
    assert all(torch.equal(a,b) for a,b in zip(one._extra, whole._extra))
    for a,b in ((one._table,whole._table),(one._peak,whole._peak)):  # float64; a merge adds one rounding of the mean
        assert torch.equal(a[0], b[0]) and torch.allclose(a[1], b[1], rtol=1e-13, atol=1e-13) and torch.allclose(a[2], b[2], rtol=1e-11, atol=1e-11)

@pytest.mark.parametrize('kw', [dict(quantiles=False), dict(groups=6), dict(groups=0), dict(ddof=1), dict(red_dims='global')])
def test_recorders_of_another_kind_are_not_merged(kw):
    a,x = _rec(torch.randn(2,1,3,4)),torch.randn(2,1,3,4)
    o = StatsRecorder(**{**dict(red_dims=(0,3), quantiles=True, groups=5), **kw}); o.update(x)
    was = _state(a)
    for f in (lambda: a.merge(o), lambda: a+o):
        with pytest.raises(ValueError, match=f'other: expected {list(kw)[0]}'): f()
    assert _state(a)==was

@pytest.mark.parametrize('k,v', [('sr',8000), ('hop_length',2), ('to_db',False), ('waveform_norm','standard'), ('units','std')])
def test_spectrograms_made_otherwise_are_neither_added_nor_merged(k, v):
    x = torch.randn(2,1,3,4)
    a,other = _rec(AudioSpectrogram.create(x, settings=S)),AudioSpectrogram.create(x, settings={**S,k:v})
    was = _state(a)
    with pytest.raises(ValueError, match=f'{k} is .*{v}'): a.update(other)
    with pytest.raises(ValueError, match=f'{k} is .*{v}'): a.merge(_rec(other))
    with pytest.raises(ValueError, match='settings are not known, expected known'): a.update(x)
    with pytest.raises(ValueError, match='settings are known, expected unknown'): _rec(x).merge(a)
    with pytest.raises(ValueError, match='freqs is'): a.update(AudioSpectrogram.create(x, settings=S, freqs=(1.,2.,3.)))
    assert _state(a)==was

def test_merging_into_an_empty_recorder_copies_and_leaves_the_other():
    b = _rec(torch.randn(3,1,2,4)); was = _state(b)
    a = b.like().merge(b)
    a.update(torch.randn(2,1,2,4)*9)
    assert _state(b)==was and a.nobservations==5
    b.merge(b)
    assert b.nobservations==6 and b.count.flatten().tolist()==[24,24]

def test_a_pickled_recorder_goes_on_where_it_was():
    x = torch.randn(5,2,3,6); x[1,0,0,0] = math.nan
    sg = AudioSpectrogram.create(x, settings=S, fn=tuple('abcde'), freqs=(1.,2.,3.))
    a = _rec(sg); b = pickle.loads(pickle.dumps(a)); c = copy.deepcopy(a)
    assert _state(a)==_state(b)==_state(c) and b.bad_files=={'b':1}
    for r in (a,b,c): r.update(sg)
    assert _state(a)==_state(b)==_state(c) and b.nobservations==10
    assert _state(pickle.loads(pickle.dumps(StatsRecorder())))==_state(StatsRecorder())

# --- much data, odd tensors

def test_a_hundred_million_float32_elements_keep_thirteen_digits():
    """Batches of whole numbers (float32 holds them exactly) whose level drifts, against exact rational arithmetic. Measured relative errors: mean 5e-17,
    std 3e-16; float32 sums give a variance of 7168 where it is 854"""
    rng,rec,steps = np.random.default_rng(0),StatsRecorder(),100
    pool = [rng.integers(-50,51,(4,1,50,5000), dtype=np.int32).astype(np.float32) for _ in range(4)]
    sums = [(int(p.astype(np.int64).sum()),int((p.astype(np.int64)**2).sum())) for p in pool]
    n,s1,s2 = pool[0].size,0,0
    for i in range(steps):
        off = 100_000+i%7
        rec.update(torch.from_numpy(pool[i%4]+np.float32(off)))
        a,b = sums[i%4]
        s1 += a+n*off; s2 += b+2*off*a+n*off*off
    mean = Fraction(s1,n*steps); var = Fraction(s2,n*steps)-mean**2
    assert rec.count.item()==n*steps==10**8
    assert abs(Fraction(rec.mean.item())/mean-1)<1e-14 and abs(Fraction(rec.std.item())**2/var-1)<1e-13

def test_many_small_batches_do_not_drift_from_fsum():
    rng = np.random.default_rng(1); x = (rng.lognormal(0,2,(20_000,8))-3).astype(np.float32)
    rec = StatsRecorder()
    for i in range(0,20_000,8): rec.update(torch.from_numpy(x[i:i+8].reshape(8,1,1,8)))
    v = x.astype(np.float64).ravel().tolist()
    m = math.fsum(v)/len(v); s = math.sqrt(math.fsum((o-m)**2 for o in v)/len(v))
    assert abs(rec.mean.item()/m-1)<1e-13 and abs(rec.std.item()/s-1)<1e-13  # 2500 merges, each with a rounding of 1e-16

@pytest.mark.parametrize('dtype', dtypes)
@pytest.mark.parametrize('f64', [True,False])
def test_a_batch_is_never_changed(dtype, f64, monkeypatch):
    monkeypatch.setattr(recorder, '_has_float64', lambda device: f64)
    for bad in (False,True):
        for kw in ({}, dict(lengths=torch.tensor([3,6,0])), dict(mask=torch.rand(3,6)<.5)):
            x = (torch.randn(3,2,4,6)*9).to(dtype)
            if bad: x[1,0,2,1] = math.nan
            for y in (x, AudioSpectrogram.create(x, settings=S), AudioSpectrogram.create(x, settings={**S,'to_db':False,'power':2.})):
                was,mask = x.clone(),copy.deepcopy(kw)
                StatsRecorder(quantiles=True, groups=2, on_bad='skip').update(y, **kw)
                assert torch.equal(x.nan_to_num(5.), was.nan_to_num(5.)) and all(torch.equal(kw[k], mask[k]) for k in kw)

@pytest.mark.parametrize('dtype', [torch.float32,torch.float64])
@pytest.mark.parametrize('f64', [True,False])
@pytest.mark.parametrize('how', ['transposed','strided','expanded over time','expanded over items','channels last','requires grad','inference'])
def test_any_layout_gives_what_a_contiguous_copy_gives(how, dtype, f64, monkeypatch):
    monkeypatch.setattr(recorder, '_has_float64', lambda device: f64)
    x = torch.randn(4,2,6,8, dtype=dtype)*9  # in-place work on any of these would show in x
    if how=='transposed': y = x.permute(3,1,0,2)
    if how=='strided': y = x[::2,:,1::2,::3]
    if how=='expanded over time': y = x[...,:1].expand(4,2,6,9)
    if how=='expanded over items': y = x[:1].expand(5,2,6,8)
    if how=='channels last': y = x.contiguous(memory_format=torch.channels_last)
    if how=='requires grad': y = x.requires_grad_()*2
    if how=='inference':
        with torch.inference_mode(): y = x*2
    mask = torch.rand(y.shape[0], y.shape[-1])<.7; mask[0,0] = True
    for kw in ({}, dict(mask=mask)):
        a,b = (StatsRecorder((0,3), quantiles=True, groups=3) for _ in range(2))
        was = x.detach().clone()
        for r,v in ((a,y),(b,torch.from_numpy(np.ascontiguousarray(y.detach().numpy())))):
            for _ in range(2): r.update(v, **kw)
        assert torch.equal(x.detach(), was) and a.frames==b.frames and not a.mean.requires_grad
        # sums may run in another order
        assert torch.allclose(a.mean, b.mean, rtol=1e-6 if not f64 else 1e-13, atol=1e-6 if not f64 else 1e-13) and torch.allclose(a.std, b.std, rtol=1e-6 if not f64 else 1e-12)
        assert all(torch.equal(p,q) for p,q in zip(a._extra, b._extra))

def test_an_empty_batch_changes_nothing():
    rec = StatsRecorder((0,3), quantiles=True, groups=2)
    rec.update(torch.randn(0,1,3,5)); assert rec.nobservations==0 and 'empty' in repr(rec)
    rec.update(torch.randn(2,1,3,5)); was = _state(rec)
    rec.update(torch.randn(0,1,3,5), lengths=torch.zeros(0, dtype=torch.long), mask=torch.ones(0,5,dtype=torch.bool), groups=[])
    assert _state(rec)==was

@pytest.mark.parametrize('quantiles', [False,True])
def test_a_batch_without_frames_counts_items_and_nothing_else(quantiles):
    "Such as an empty slice of time"
    rec = StatsRecorder((0,3), quantiles=quantiles, groups=2); x = torch.randn(2,1,3,5)
    rec.update(x); m = rec.mean
    rec.update(torch.randn(2,1,3,0))
    assert torch.equal(rec.mean, m) and rec.frames['counted']==10 and rec.nobservations==4
    first = StatsRecorder((0,3), quantiles=quantiles, groups=2)
    first.update(torch.randn(2,1,3,0)); first.update(x)
    assert torch.equal(first.mean, m)

def test_one_frame_is_its_own_mean():
    x = torch.randn(1,2,3,1)
    rec = StatsRecorder((0,3), quantiles=True, groups=2); rec.update(x)
    assert torch.equal(rec.mean, x.double()) and (rec.std==0).all() and (rec.count==1).all()
    s = SpecStats.from_recorder(rec)
    for q in (0,.3,1): assert torch.equal(s.quantile(q), x.double())
    with pytest.raises(ValueError, match='at least two clips'): s.standard_error()
    assert torch.equal(rec.mean, x.double())

def test_constant_input_has_no_deviation_at_all():
    "Not even a rounding, so that a constant row can be told"
    for v in (.1, 1e4+.1, -77.7):
        rec = StatsRecorder((0,3), groups=3)
        for n in (3,1,4): rec.update(torch.full((n,1,2,7), v))
        assert (rec.std==0).all()
