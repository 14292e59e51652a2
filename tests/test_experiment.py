"One run: the data is what the pipeline gives, kept or not; weights, order and splits go by the seed alone"
import numpy as np, pandas as pd, pytest, soundfile as sf, torch
from pathlib import Path
from fastai.callback.core import Callback
from specnorm_fastai.all import *
from specnorm_fastai.experiment import _Altered,_class_rows,_is_fixed,_setting_defaults

@pytest.fixture(scope='module')
def small(tmp_path_factory): return read_table(synthetic_audio(tmp_path_factory.mktemp('small'), n=40, seconds=.5))

def collector(df, valid, s, store): return lambda chain, before, quantiles: collect_stats(experiment_dls(df, valid, before, s, store), quantiles=quantiles, progress=False)

def test_kept_features_are_those_of_the_pipeline(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.4, crop='center', bs=8)
    store = AudioStore().fill(small.path)
    assert _is_fixed(small, s, store) and not _is_fixed(small, experiment_settings(duration=.4), store) and not _is_fixed(small, dict(s, crops=2), store)
    for way in ('none','global','item_frequency','pcen+frequency'):
        tfms = way_tfms(way, collector(small, valid, s, store), s)
        dls,kept = experiment_dls(small, valid, tfms, s),keep_features(experiment_dls(small, valid, tfms, s, store))
        for a,b in ((dls.valid,kept.valid),(dls.train.new(shuffle=False),kept.train.new(shuffle=False))):
            for (x,y),(u,v) in zip(a, b, strict=True):
                assert torch.allclose(x.plain(), u.plain(), atol=1e-4) and (y==v).all() and x.settings==u.settings and x.lengths.tolist()==u.lengths.tolist()
        x,_ = kept.train_ds[0]; x.zero_()
        assert kept.train_ds[0][0].abs().sum()>0  # a copy each time

def test_kept_or_not_a_run_ends_alike(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.5, epochs=1, bs=8, arch='small')
    store = AudioStore().fill(small.path)
    assert _is_fixed(small, s, store)
    a,b = (train_run(small, valid, None, 3, s, st) for st in (store,None))
    assert np.allclose([p['p_label'] for p in a['predictions']], [p['p_label'] for p in b['predictions']], atol=1e-3)
    c = train_run(small, valid, None, 4, s, store)
    assert a['row']['loss']!=c['row']['loss']

def test_augmentations_reach_kept_features_in_training_alone(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.5, specaugment=dict(freq=20, n_freq=2, time=10), bs=8)
    store = AudioStore().fill(small.path)
    tfms = way_tfms('global', collector(small, valid, s, store), s)
    kept = keep_features(experiment_dls(small, valid, tfms, s, store))
    zero = lambda dl: float(np.mean([(x.plain()==0).float().mean() for x,_ in dl]))
    assert zero(kept.train)>.05 and zero(kept.valid)<.01
    a,b = (next(iter(kept.train.new(shuffle=False)))[0].plain() for _ in range(2))
    assert not torch.equal(a, b)

def test_the_store_keeps_what_fits(small):
    sizes = [AudioStore()(Path(p)).numel()*4 for p in small.path]
    store = AudioStore(max_bytes=sum(sizes[:10])).fill(small.path)
    assert list(store.kept)[:10]==small.path[:10].tolist() and len(store.kept)<40 and store.used==sum(v.numel()*4 for v in store.kept.values())<=sum(sizes[:10])
    for p in small.path[8:12]: assert torch.equal(store(Path(p)).plain(), AudioStore()(Path(p)).plain())
    store(Path(small.path[0])).zero_()
    assert store(Path(small.path[0])).abs().sum()>0
    assert AudioStore(8000)(Path(small.path[0])).sr==8000

def test_statistics_come_from_the_train_clips_of_the_fold_alone(small):
    "Validation clips made a thousand times louder change no statistics"
    valid,s = split_masks(small, 2),experiment_settings(duration=.5, waveform='none')
    store = AudioStore().fill(small.path)
    a = collector(small, valid, s, store)('', [], False)
    for p in small.path[valid]: store.kept[p] = store.kept[p]*1000
    b = collector(small, valid, s, store)('', [], False)
    assert torch.equal(a.mean, b.mean) and torch.equal(a.std, b.std)

def test_a_chain_takes_statistics_of_what_went_before(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.5)
    store,seen = AudioStore().fill(small.path),[]
    collect = collector(small, valid, s, store)
    tfms = way_tfms('pcen+frequency', lambda *a: seen.append(a) or collect(*a), s)
    assert [(c,[type(t).__name__ for t in ts],q) for c,ts,q in seen]==[('pcen',['PCEN'],False)]
    rec = StatsRecorder('frequency')
    for x,_ in experiment_dls(small, valid, tfms, s, store).train.new(shuffle=False, drop_last=False): rec.update(x, mask=x.frame_mask('silence'))
    assert rec.mean.abs().max()<1e-4 and (rec.std-1).abs().max()<1e-4

def test_fill_covers_padding_and_changes_no_statistics(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=1.5)
    store = AudioStore().fill(small.path)
    collect = collector(small, valid, s, store)
    plain,after,before = ([d.valid.one_batch()[0] for d in [experiment_dls(small, valid, way_tfms(w, collect, s), s, store)]][0] for w in ('global','global+fill','fill+global'))
    m = plain.frame_mask('silence')[:,None,None].expand(plain.shape)
    assert not m.all() and torch.equal(plain.plain()[m], after.plain()[m]) and torch.allclose(before.plain()[m], after.plain()[m], atol=1e-6)
    assert torch.allclose(before.plain(), after.plain(), atol=1e-6)
    low = torch.where(m, plain.plain(), torch.inf).amin(-1, keepdim=True).expand(plain.shape)
    assert torch.equal(after.plain()[~m], low[~m]) and (plain.plain()[~m]<after.plain()[~m]-3).float().mean()>.9
    zero = way_tfms('global+fill', collect, {**s, 'way_options':dict(fill=dict(value=0.))})
    assert (experiment_dls(small, valid, zero, s, store).valid.one_batch()[0].plain()[~m]==0).all()
    with pytest.raises(ValueError, match='way_options.fill: mask: expected'): way_tfms('global+fill', collect, {**s, 'mask':'none'})

@pytest.mark.parametrize('way,msg', [('global+frequency','done by one transform'), ('item+bands','done by one transform'), ('item+item','done by one transform'), ('short+item','done by one transform'), ('none+item','stands alone'), ('item+pcen','comes first')])
def test_chains_that_cannot_be_are_refused(way, msg):
    with pytest.raises(ValueError, match=msg): check_ways([way], dict(short=dict(use='bands')) if 'short' in way else None)

def test_class_rows_are_sklearns():
    from sklearn.metrics import precision_recall_fscore_support
    rng = np.random.default_rng(0); vocab = list('abcd')
    l,p = rng.choice(vocab[:3], 50).tolist(),rng.choice(vocab, 50).tolist()
    got = pd.DataFrame(_class_rows(l, p, vocab)).set_index('label')
    pre,rec,f1,n = precision_recall_fscore_support(l, p, labels=vocab, zero_division=np.nan)
    assert got.clips.tolist()==n.tolist()
    for k,v in (('precision',pre),('recall',rec),('f1',f1)): np.testing.assert_allclose(got[k], v, atol=1e-12)

def test_features_with_options_and_names_of_settings():
    assert feature_config(dict(kind='spec', n_fft=512)).n_fft==512 and feature_config().n_mels==64
    for bad,msg in ((dict(features='mfcc'),'features: expected one of'), (dict(features=dict(kind='mel', nfft=3)),"did you mean 'n_fft'"), (dict(epochs=True),'epochs'),
                    (dict(lr=float('nan')),'lr'), (dict(duration='5'),'duration'), (dict(crops=2, crop='center'),'crops: expected 1'), (dict(specaugment=dict(f=3)),'specaugment')):
        with pytest.raises(ValueError, match=msg): experiment_settings(**bad)
    assert experiment_settings()==_setting_defaults

def test_defaults_in_the_help_are_those_of_the_code():
    from specnorm_fastai.cli import _parser
    from specnorm_fastai.compare import _call_defaults,_synthetic
    told = {a.dest:a.help for a in _parser()._actions}
    for k,v in {**_setting_defaults, **_call_defaults}.items():
        if k in told and isinstance(v, (int,float,str)): assert f'({v:g}' in told[k] or f'({v}' in told[k] if isinstance(v, float) else f'({v}' in told[k], (k,v,told[k])
    for k,v in _synthetic.items(): assert f'synthetic set: {v}' in told[k], k

def test_masks_hold_the_mean_of_each_way(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.5, specaugment=dict(freq=20, n_freq=2, time=0, n_time=0))
    store = AudioStore().fill(small.path)
    for way in ('none','item','pcen'):
        t = experiment_dls(small, valid, way_tfms(way, None, s), s, store).after_batch.fs[-1]
        assert type(t).__name__=='SpecAugment' and t.val==(0. if way=='item' else None)

def tone(hz=3000., sr=16000, secs=1.):
    t = torch.arange(int(sr*secs))/sr
    return AudioTensor((torch.sin(2*np.pi*hz*t)*((t>.4)&(t<.6)))[None], sr=sr)

def power(x): return x.plain().pow(2).mean().item()

def test_conditions_do_what_they_say():
    x = tone()
    noisy = alter_audio(x, snr=6.)
    for color in (0,1,2): assert np.isclose(10*np.log10(power(x)/power(AudioTensor(alter_audio(x, snr=6., color=color).plain()-x.plain(), sr=16000))), 6, atol=1e-3)
    assert torch.equal(alter_audio(x*0, snr=0.), x*0)
    assert torch.equal(noisy, alter_audio(x, snr=6.)) and not torch.equal(noisy, alter_audio(x, snr=6., seed=1))
    assert np.isclose(power(alter_audio(x, gain=-20.)), power(x)/100, rtol=1e-5)
    for how in (dict(sample_rate=4000), dict(high=2000.), dict(low=5000.)): assert power(alter_audio(x, **how))<.02*power(x), how
    for how in (dict(sample_rate=8000), dict(high=4000.), dict(low=2000.)): assert .8*power(x)<power(alter_audio(x, **how))<1.01*power(x), how
    assert alter_audio(x, sample_rate=11025).shape==x.shape
    part = alter_audio(x, keep=.2)
    assert part.shape[-1]==3200 and np.isclose(part.plain().pow(2).sum(), x.plain().pow(2).sum(), rtol=1e-3)
    assert torch.equal(alter_audio(x, keep=9.), x)
    ends = alter_audio(x, silence=.5)
    assert ends.shape==x.shape and (ends[...,:4000]==0).all() and (ends[...,-4000:]==0).all() and torch.equal(ends[...,4000:12000], x[...,4000:12000])
    for b in (2,4):
        coarse = alter_audio(x, bits=b, gain=20.)
        assert coarse.min()==-1 and coarse.max()==1-2.**(1-b) and 2<len(coarse.unique())<=2**b
    assert alter_audio(x).sr==16000 and torch.equal(alter_audio(x), x)

def test_filters_are_butterworths_both_ways():
    sr,n = 16000,2**15
    x = AudioTensor(torch.nn.functional.pad(torch.ones(1, 1), (n//2,n//2-1)), sr=sr)
    y = alter_audio(x, high=2000.).plain()[0].double()
    gain = torch.fft.rfft(y).abs().numpy(); f = np.fft.rfftfreq(n, 1/sr)
    want = 1/(1+(np.tan(np.pi*f/sr)/np.tan(np.pi*2000/sr))**16)
    assert np.abs(gain-want)[f<7900].max()<1e-3

@pytest.mark.parametrize('how,msg', [(dict(a=dict(gian=3)), "gian' is not known; did you mean 'gain'"), (dict(a={}), r"conditions.a: expected one of \['sample_rate', .*'silence'\], got {}, which changes nothing"), (dict(a=dict(color=2)), "conditions.a: expected one of .* got {'color': 2}"),
    (dict(a=dict(color=2, gain=3)), 'conditions.a: color: expected together with snr'), (dict(a=dict(gain='3')), 'conditions.a: gain: expected a number'),
    (dict(a=dict(sample_rate=8000.)), 'conditions.a: sample_rate: expected a whole number'), (dict(a=3), 'conditions: expected a table'), (dict(a=dict(bits=40)), '2 to 24'), (dict(a=dict(keep=0)), 'conditions.a: keep'),
    (dict(a=dict(high=9000)), 'conditions.a: high: expected less than half the sample rate, 8000 Hz, got 9000'), (dict(a=dict(low=1e-9)), 'low: expected a number of 1 to'), (dict(a=dict(gain=float('nan'))), 'gain: expected'), ({'all, of it':{}}, "does not begin with 'all, '")])
def test_conditions_that_are_none_are_refused(how, msg):
    with pytest.raises(ValueError, match=msg): experiment_settings(conditions=how)

def test_a_band_above_half_the_rate_is_refused():
    with pytest.raises(ValueError, match='high: expected less than half the sample rate, 8000'): alter_audio(tone(), high=8000.)

@pytest.mark.parametrize('how,msg', [(dict(bits=0), 'bits: expected a whole number of 2 to 24'), (dict(bits=2.5), 'bits: expected a whole'), (dict(keep=-1), 'keep'), (dict(silence=-.5), 'silence'), (dict(snr='3'), 'snr: expected a number'), (dict(gain=float('inf')), 'gain')])
def test_alterations_that_are_none_are_refused(how, msg):
    with pytest.raises(ValueError, match=msg): alter_audio(tone(), **how)

def test_integer_audio_and_colour_without_noise_are_refused():
    with pytest.raises(TypeError, match='audio: expected floating point samples .* got torch.int16'): alter_audio(AudioTensor(torch.ones(1, 900, dtype=torch.int16), sr=16000, fn='a.wav'), gain=-6)
    with pytest.raises(ValueError, match='color: expected together with snr, the level of the noise, got 2 alone'): alter_audio(tone(), color=2)

def test_only_one_clip_is_altered():
    for x in (torch.zeros(1, 100), AudioTensor(torch.zeros(2, 1, 100), sr=16000)):
        with pytest.raises(ValueError, match='x: expected an AudioTensor of one clip'): alter_audio(x, gain=3)
    assert alter_audio(AudioTensor(torch.zeros(1, 0), sr=16000), low=100, high=1000, sample_rate=8000, snr=3, keep=1, silence=1).shape==(1,0)

def test_each_condition_changes_what_the_network_hears_and_each_clip_by_itself(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.4, waveform='none', bs=8)
    store = AudioStore().fill(small.path)
    heard = lambda st: torch.cat([x.plain() for x,_ in experiment_dls(small, valid, None, s, st).valid])
    clean = heard(store)
    for how in (dict(sample_rate=8000), dict(low=300), dict(high=3000), dict(snr=10), dict(gain=-6), dict(bits=6), dict(keep=.2), dict(silence=.2)):
        assert ((heard(_Altered(store, how))-clean).abs().amax((1,2,3))>.1).all(), how
    a,b = (Path(p) for p in small.path[:2])
    n = min(store.encodes(a).shape[-1], store.encodes(b).shape[-1])
    noise = [(_Altered(store, dict(snr=0)).encodes(p).plain()-store.encodes(p).plain())[0,:n] for p in (a,b)]
    assert abs(np.corrcoef(*[v.numpy() for v in noise])[0,1])<.1

def test_clips_of_one_name_in_two_folders_get_noise_of_their_own(tmp_path):
    for c in 'ab':
        (tmp_path/c).mkdir()
        for i in range(6): sf.write(tmp_path/c/f'{i}.wav', np.random.default_rng(i).normal(size=8000)*.1, 16000)
    from specnorm_fastai import experiment as E
    df = E.read_table(tmp_path)
    s = experiment_settings(duration=.5, waveform='none', bs=16, conditions={'noise':dict(snr=0)})
    valid = df.filename.isin(['a/0.wav','b/0.wav']).to_numpy()
    x = E._under_conditions(df, valid, None, s, None)[0].one_batch()[0].plain()
    assert x.shape[0]==2 and (x[0]-x[1]).abs().max()>1

def test_options_of_a_way_take_the_word_of_the_setting_for_no_mask():
    assert [t.mask for t in way_tfms('item', None, dict(mask='none', way_options=dict(item=dict(mask='none'))))]==[None]

def test_a_run_answers_under_conditions(small):
    valid = split_masks(small, 1)
    s = experiment_settings(duration=.5, epochs=2, bs=8, arch='small', waveform='none', conditions={'as it is':dict(gain=0), 'softer':dict(gain=-30.), 'no sound':dict(gain=-200.)})
    store = AudioStore().fill(small.path)
    r = train_run(small, valid, None, 0, s, store)
    c = r['conditions']
    assert list(c)==list(s['conditions'])
    assert np.allclose(c['as it is']['p_label'], [p['p_label'] for p in r['predictions']], atol=1e-4) and c['as it is']['accuracy']==r['row']['accuracy']
    assert not np.allclose(c['softer']['p_label'], c['as it is']['p_label'], atol=1e-2) and len(set(c['no sound']['predicted']))==1
    level = train_run(small, valid, None, 0, dict(s, waveform='standard', conditions={'softer':dict(gain=-30.)}), store)
    assert np.allclose(level['conditions']['softer']['p_label'], [p['p_label'] for p in level['predictions']], atol=1e-2)  # AudioNormalize takes the level away

def test_members_are_averaged(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.4, epochs=2, bs=8, arch='small', mixup=.4, mix='waveform', members=2)
    store = AudioStore().fill(small.path)
    both = train_run(small, valid, None, 3, s, store)
    one = [train_run(small, valid, None, 3000+m, dict(s, members=1), store) for m in (0,1)]
    assert np.allclose([p['p_label'] for p in both['predictions']], np.mean([[p['p_label'] for p in r['predictions']] for r in one], 0), atol=1e-4)
    assert [(h['member'],h['epoch']) for h in both['history']]==[(0,1),(0,2),(1,1),(1,2)]

def test_looks_at_validation_clips_are_as_many_as_asked_for(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.4, epochs=5, bs=8, arch='small', validate_every=2)
    store = AudioStore().fill(small.path)
    seen = []
    class Count(Callback):
        order = 99
        def before_validate(self): seen.append(self.epoch+1)
    rare = train_run(small, valid, None, 0, s, store, cbs=[Count()])
    assert seen==[2,4,5]
    assert [h['epoch'] for h in rare['history'] if h['valid_loss'] is not None]==[2,4,5] and len(rare['history'])==5

@pytest.mark.parametrize('more', [{}, dict(crops=2, mixup=.4, mix='waveform', speed=1.2, specaugment=dict(freq=8))])
def test_looking_at_validation_clips_changes_no_network(small, more):
    valid,s = split_masks(small, 1),experiment_settings(**{**dict(duration=.4, epochs=4, bs=8, arch='small'), **more})
    store = AudioStore().fill(small.path)
    a,b = (train_run(small, valid, None, 0, dict(s, validate_every=k), store) for k in (1,3))
    p,losses = ([[o[k] for o in r[part]] for r in (a,b)] for part,k in (('predictions','p_label'),('history','train_loss')))
    assert np.allclose(*p, atol=1e-4) and np.allclose(*losses, atol=1e-4)  # threads may sum in another order

def test_the_mask_reaches_statistics_and_ways(small):
    masks = {m:[getattr(t, 'mask', 'none of its own') for t in way_tfms('item', None, experiment_settings(mask=m))] for m in ('silence','padding','none')}
    assert masks=={'silence':['silence']*2, 'padding':['padding']*2, 'none':[None]}
    with pytest.raises(ValueError, match="mask: expected one of"): experiment_settings(mask='frames')

def test_the_mask_of_an_arm_is_that_of_its_statistics(tmp_path):
    made = tmp_path/'data'
    synthetic_audio(made, n=24, seconds=.5)
    for f in (made/'audio').iterdir():  # half of each clip is silent
        x,sr = sf.read(f); sf.write(f, np.concatenate([x, np.zeros(len(x))]), sr)
    arms = {f'mask {m}':dict(way='global', mask=m) for m in ('silence','none')}
    compare(made, tmp_path/'out', ways=list(arms), arms=arms, epochs=1, runs=1, duration=1., arch='small', bs=8, log=lambda s: None)
    with np.load(tmp_path/'out'/'examples.npz') as z:
        y,b = ({k:z[f'way:{k}'] for k in arms},z['before'])
        for k in arms: assert np.allclose(np.polyfit(b.ravel(), y[k].ravel(), 1, full=True)[1], 0, atol=1e-3)  # each is a line of what was before
        slope = {k:np.polyfit(b.ravel(), y[k].ravel(), 1)[0] for k in arms}
    assert slope['mask silence']>1.3*slope['mask none']  # silence lies far below and makes the std larger

def test_rolled_clips_are_turned_in_training_alone(small):
    valid,s = split_masks(small, 1),experiment_settings(duration=.5, roll=True, waveform='none', bs=8)
    store = AudioStore().fill(small.path)
    assert not _is_fixed(small, s, store)
    dls = experiment_dls(small, valid, None, s, store)
    still = experiment_dls(small, valid, None, dict(s, roll=False), store)
    a,b = (torch.cat([x.plain() for x,_ in d.valid]) for d in (dls,still))
    assert torch.equal(a, b)
    a,b = (torch.cat([x.plain() for x,_ in d.train.new(shuffle=False)]) for d in (dls,still))
    assert not torch.allclose(a, b, atol=1e-2) 
    loud = lambda v: (10**(v/10)).mean(-1).log10()*10  # power over time stays where it was, but for the frames at the seam
    assert ((loud(a)-loud(b)).abs()<3).float().mean()>.9

def test_false_stands_for_none_in_a_recipe():
    s = experiment_settings(mixup=False, specaugment=False, min_energy=False, wd=False, duration=False)
    assert all(s[k] is None for k in ('mixup','specaugment','min_energy','wd','duration'))
    assert check_arms(dict(a=dict(way='item', mixup=False)), s)=={'a':dict(way='item', mixup=None)}

def test_crops_of_an_altered_clip_are_of_one_alteration(small, monkeypatch):
    from specnorm_fastai import experiment as E
    from specnorm_fastai.callback import AverageCrops
    made,real = [],E.alter_audio
    monkeypatch.setattr(E, 'alter_audio', lambda x, **kw: made.append(x.fn) or real(x, **kw))
    valid,s = split_masks(small, 2),experiment_settings(duration=.3, crops=4, arch='small', features='mel')
    dl = experiment_dls(small, valid, None, s, E._Altered(AudioStore(), dict(snr=10))).valid
    made.clear()
    from specnorm_fastai.callback import _crops_dl
    xs = torch.cat([b[0].plain() for b in _crops_dl(dl, 4)])
    assert len(xs)==4*valid.sum() and len(made)==valid.sum() and len({x.sum().item() for x in xs})>2*valid.sum()
