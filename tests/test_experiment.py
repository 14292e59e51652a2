"One run: the data is what the pipeline gives, kept or not; weights, order and splits go by the seed alone"
import numpy as np, pandas as pd, pytest, torch
from pathlib import Path
from specnorm_fastai.all import *
from specnorm_fastai.experiment import _class_rows,_is_fixed,_setting_defaults

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
