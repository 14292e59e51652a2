"The package with whatever versions there are, the newest or others: import it, build a DataBlock, train an epoch, export its front end. A program, not a pytest: an environment may have none"
import sys,tempfile,warnings
from importlib.metadata import version
from pathlib import Path

def main():
    from fastai.vision.all import CategoryBlock,ColReader,DataBlock,load_learner,pd
    from specnorm_fastai.all import (AddNoise,AudioBlock,AudioConfig,AudioNormalize,AudioToSpec,CrossValidationSplitter,MaskFreq,SpecFrontend,SpecNormalize,
                                     StatsCallback,StatsRecorder,compare,mel_spectrogram_torch,spec_learner,suggest_normalization,synthetic_audio,torch)
    assert 'torchaudio' not in sys.modules, 'the package imported torchaudio'
    try: import torchaudio; state = 'imports'
    except Exception as e: state = f'does not import ({type(e).__name__}: {str(e).splitlines()[0]})'
    print(', '.join(f'{n} {version(n)}' for n in ('torch','torchvision','torchaudio','fastai','librosa','numpy','pandas')))
    print(f'torchaudio {state}')

    with tempfile.TemporaryDirectory() as d:
        path = synthetic_audio(d, n=80)
        df = pd.read_csv(path/'meta'/'synthetic.csv')
        to_mel = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=1024, hop_length=320, n_mels=64))
        block = DataBlock(blocks=(AudioBlock(crop_signal_to=1000), CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'),
                          splitter=CrossValidationSplitter(fold=1), item_tfms=AddNoise(), batch_tfms=[AudioNormalize(), to_mel, SpecNormalize(axes='frequency'), MaskFreq()])
        dls = block.dataloaders(df, bs=16, num_workers=2)
        rec = StatsRecorder('frequency')
        learn = spec_learner(dls, path=path)
        learn.fit_one_cycle(1, 1e-3, cbs=StatsCallback(rec))
        assert rec.nobservations==len(dls.train_ds)==64, rec
        assert (rec.mean-next(t for t in dls.after_batch.fs if isinstance(t, SpecNormalize)).mean).abs().max()<1e-9
        probs,_ = learn.get_preds()
        learn.export('m.pkl')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            again = load_learner(path/'m.pkl')
        with again.no_bar(): _,_,p = again.predict(path/'audio'/dls.valid_ds.items.filename.iloc[0])
        assert probs.shape==(16,8) and (p-probs[0]).abs().max()<1e-5, (p,probs[0])
        front,x = SpecFrontend.from_dls(dls),torch.rand(3,1,9001)-.5
        try: assert (front.export().module()(x)-front(x)).abs().max()<1e-5
        except ImportError as e: assert tuple(map(int, torch.__version__.split('.')[:2]))<(2,9), e; print(e)
        args = 512,40,16000,256,512,0.,None
        mel = torch.compile(lambda y: mel_spectrogram_torch(y, *args), fullgraph=True, backend='aot_eager')
        assert (mel(x)-mel_spectrogram_torch(x, *args)).abs().max()<1e-4
        assert suggest_normalization(dls, progress=False).way in ('global','frequency','item','item_frequency','item+frequency')
        table = compare(path, path/'out', ways=['none','pcen+global'], epochs=1, runs=2, duration=.5, arch='small', bs=16, log=lambda s: None)
        assert table.runs.tolist()==[2,2] and (path/'out'/'report.html').stat().st_size>10**5
    print('stack: imported, trained an epoch, exported, loaded, predicted and compared')

if __name__=='__main__': main()
