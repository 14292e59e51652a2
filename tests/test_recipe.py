"The recipe is what its experiment measures, and what DataBlock, spec_learner and fit_one_cycle take"
from pathlib import Path
import pandas as pd, pytest, torch
from fastai.data.all import CategoryBlock,ColReader,DataBlock
from fastai.callback.mixup import MixUp
from fasttransform.transform import Transform
from specnorm_fastai.augment import CropTime,Delta
from specnorm_fastai.callback import AverageCrops
from specnorm_fastai.compare import compare,read_recipe
from specnorm_fastai.data import AudioBlock,CrossValidationSplitter,audio_table,synthetic_audio
from specnorm_fastai.experiment import AudioStore,experiment_dls,experiment_settings,read_table,way_tfms
from specnorm_fastai.core import AudioSpectrogram
from specnorm_fastai.features import AudioConfig,AudioToSpec
from specnorm_fastai.learner import spec_learner
from specnorm_fastai.recipe import spec_recipe
from specnorm_fastai.share import load_spec_model,save_spec_model
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize
from specnorm_fastai.ways_tfms import FillFrames,ItemNormalize,PCEN,RMSNormalize,RobustNormalize

ROOT = Path(__file__).resolve().parent.parent
FLOOR = {'db_max':{'top_db':50}}
CALL = ('ways','baseline','runs','fold','label_col','fold_col')

@pytest.fixture(scope='module')
def data(tmp_path_factory): return synthetic_audio(tmp_path_factory.mktemp('recipe'), n=80, seconds=1., folds=2)

def dls_of(r, data, **kwargs):
    block = DataBlock(blocks=(AudioBlock(**r['audio']), CategoryBlock), get_x=ColReader('path'), get_y=ColReader('category'), splitter=CrossValidationSplitter(fold=1), **r['block'])
    return block.dataloaders(audio_table(data), **r['dls'], **kwargs)

def test_the_experiment_measures_the_recipe():
    recipe = read_recipe(ROOT/'experiments'/'best.toml')
    assert recipe['ways']==['db_max+global'] and recipe['way_options']==FLOOR  # what the data below are made with
    recipe = {k:v for k,v in recipe.items() if k not in (*CALL,'way_options')}
    recipe.update(members=1, validate_every=1)  # of several networks, and of curves
    assert experiment_settings(**recipe)==spec_recipe('small')['settings']

@pytest.mark.parametrize('kw', [{}, dict(mask='none', waveform='peak'), dict(min_energy=False, mixup=False, specaugment=False), dict(mix='spectrogram', mixup=.4, crops=1)])
def test_data_are_those_of_the_experiment(data, kw):
    kw = dict(duration=.5, bs=16, **kw)
    r = spec_recipe('small', **kw)
    dls,s,df = dls_of(r, data),r['settings'],read_table(data)
    store,valid = AudioStore(s['sample_rate']),(df.fold==1).to_numpy()
    norm = way_tfms('db_max+global', lambda chain,before,q: collect_stats(experiment_dls(df, valid, before, s, store), quantiles=q, mask=None if s['mask']=='none' else s['mask'], progress=False), {**s, 'way_options':FLOOR})
    other = experiment_dls(df, valid, norm, s, store)
    a,b = dls.valid.one_batch(),other.valid.one_batch()
    torch.testing.assert_close(a[0].as_subclass(torch.Tensor), b[0].as_subclass(torch.Tensor), rtol=1e-4, atol=1e-4)
    assert torch.equal(a[1], b[1]) and list(dls.vocab)==list(other.vocab)
    kinds = lambda d: [type(t).__name__ for t in d.train.after_batch.fs]
    assert kinds(dls)==kinds(other)
    assert [type(c) for c in r['fit']['cbs']]==([MixUp] if kw.get('mix')=='spectrogram' else [])
    assert [type(c) for c in r['learner']['cbs']]==([] if kw.get('crops')==1 else [AverageCrops])

def test_it_learns_and_is_shared(data, tmp_path):
    r = spec_recipe('small', duration=.5, epochs=2, bs=16, crops=3, precision='float32', arch_options=dict(width=8))
    learn = spec_learner(dls_of(r, data), **r['learner'])
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(**r['fit'])
    assert learn.model[0][0].out_channels==8 and len(learn.recorder.values)==2
    save_spec_model(learn, tmp_path/'model')
    files = list((data/'audio').glob('1-*'))[:5]
    p = load_spec_model(tmp_path/'model').predict_files(files, probs=True, progress=False)
    with learn.no_bar(): want = torch.stack([learn.predict(f)[2] for f in files])  # the mean over three crops
    torch.testing.assert_close(torch.tensor(p[[f'p_{l}' for l in learn.dls.vocab]].to_numpy(), dtype=torch.float32), want.as_subclass(torch.Tensor), rtol=0, atol=1e-4)

def test_each_call_makes_its_own():
    a = spec_recipe('small')
    a['settings']['specaugment']['freq'] = 1
    b,c = spec_recipe('small'),spec_recipe('small')
    assert b['settings']['specaugment']['freq']==8
    assert not any(x is y for x,y in zip(b['block']['batch_tfms'], c['block']['batch_tfms']))

@pytest.mark.parametrize('kw,says', [(dict(name='large'),"name: expected one of ['small'], got 'large'"), (dict(epoch=3),'epochs'), (dict(members=5),"'members' is a setting of `compare` alone"), (dict(name=['small']),"name: expected one of ['small'], got ['small']"), (dict(duration=None),'duration: expected seconds'),
                                     (dict(crops=0),'crops: expected'), (dict(specaugment=dict(frequency=3)),'specaugment')])
def test_wrong_arguments_are_named(kw, says):
    with pytest.raises((ValueError,TypeError)) as e: spec_recipe(**kw)
    assert says in str(e.value)

@pytest.mark.parametrize('norm,says', [('global',"got 'global'"), (3,'got 3'), (dict(way='global'),"got {'way'"), (SpecNormalize,'got <class'), ([SpecNormalize(),None],'got None'), (AudioNormalize(),'got AudioNormalize, which leaves them as they are'),
                                       ([SpecNormalize(),RMSNormalize()],'got RMSNormalize'), (AudioToSpec.from_cfg(AudioConfig.Voice()),'got AudioToSpec')], ids=str)
def test_a_norm_is_a_transform_of_spectrograms(norm, says):
    with pytest.raises((ValueError,TypeError), match=r"norm: expected a Transform of spectrograms such as SpecNormalize\(axes='frequency'\)") as e: spec_recipe(norm=norm)
    assert says in str(e.value)

def test_what_acts_on_spectrograms_is_a_norm():
    class Own(Transform):
        def encodes(self, x:AudioSpectrogram): return x*2
    class Any_(Transform):
        def encodes(self, x): return x
    for t in (Own(),Any_(),SpecNormalize(),ItemNormalize(),PCEN(),FillFrames(),RobustNormalize(1.,2.),CropTime(200),Delta()):
        assert [o for o in spec_recipe(norm=t)['block']['batch_tfms'] if o is t] and [o for o in spec_recipe(norm=(SpecNormalize(),t))['block']['batch_tfms'] if o is t]
    assert not any(isinstance(t, SpecNormalize) for t in spec_recipe(norm=[])['block']['batch_tfms'])

def test_all_is_trained_on_and_other_clips_are_predicted(data, tmp_path):
    other = synthetic_audio(tmp_path/'other', n=16, seconds=1., seed=9)
    compare(data, tmp_path/'out', recipe=ROOT/'experiments'/'best.toml', test_data=other, epochs=1, members=2, duration=.5, crops=2, log=lambda *_: None)
    p,r = pd.read_csv(tmp_path/'out'/'predictions.csv'),pd.read_csv(tmp_path/'out'/'results.csv')
    assert len(p)==16 and set(p.label)<=set(p.label) and r.n_train.tolist()==[80] and r.n_valid.tolist()==[16]
    assert p.filename.str.replace('test/', '').isin(pd.read_csv(other/'meta'/'synthetic.csv').filename).all()
