"Write what a version saves into tests/old/VERSION, with the answers that it gave: python tools/make_old.py VERSION. Run it once for each release"
import json, platform, re, sys, tempfile, warnings
from pathlib import Path

import pandas as pd
from fastai.data.all import CategoryBlock, ColReader, DataBlock
from fastai.torch_core import set_seed

import specnorm_fastai
from specnorm_fastai.core import AudioTensor
from specnorm_fastai.data import AudioBlock, CrossValidationSplitter, synthetic_audio
from specnorm_fastai.features import AudioConfig, AudioToSpec
from specnorm_fastai.learner import small_cnn, spec_learner
from specnorm_fastai.share import SpecModel
from specnorm_fastai.stats import collect_stats
from specnorm_fastai.transforms import AudioNormalize, SpecNormalize

old = Path(__file__).resolve().parent.parent/'tests'/'old'

def make(version):
    from importlib.metadata import version as of
    to = old/version
    if to.exists(): sys.exit(f"VERSION: {to} is there already, and what was saved once stays as it is")
    if version!=specnorm_fastai.__version__: sys.exit(f"VERSION: this is specnorm_fastai {specnorm_fastai.__version__}, got {version!r}")
    with tempfile.TemporaryDirectory() as d, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        df = pd.read_csv(synthetic_audio(d, n=24, seconds=.5, sr=8000, folds=3)/'meta'/'synthetic.csv')
        df['path'] = [f'{d}/audio/{f}' for f in df.filename]
        to_mel = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=256, hop_length=128, n_mels=8))
        block = DataBlock((AudioBlock(sample_rate=8000, crop_signal_to=400), CategoryBlock), get_x=ColReader('path'), get_y=ColReader('category'), splitter=CrossValidationSplitter(fold=1),
                          batch_tfms=[AudioNormalize(), to_mel, SpecNormalize(axes='frequency')])
        set_seed(0)
        dls = block.dataloaders(df, bs=8, num_workers=0)
        dls.path = Path('.')
        learn = spec_learner(dls, small_cnn(dls.c, width=3), path=Path('.'))
        with learn.no_bar(), learn.no_logging(): learn.fit(2, 1e-2)
        clip = Path(df.path[5])
        with learn.no_bar(): label,_,probs = learn.predict(clip)
        to.mkdir(parents=True)
        AudioTensor.create(clip).save(to/'clip.flac')
        stats = collect_stats(df.path.tolist()[:8], tfms=[*block.item_tfms, AudioNormalize(), to_mel], progress=False)
        for suffix in ('safetensors','json'): stats.save(to/f'stats.{suffix}')
        SpecModel.from_learner(learn).save(to/'model')
        learn.export(to/'learner.pkl')
    expected = dict(label=label, probabilities=probs.tolist(), mean=stats.mean.flatten().tolist(), std=stats.std.flatten().tolist(), median=stats.quantile([.5]).flatten().tolist(), clips=stats.n_clips,
                    versions={'specnorm_fastai':version, 'python':platform.python_version(), **{n:of(n) for n in ('torch','fastai','fastcore','fasttransform','numpy')}})
    (to/'expected.json').write_text(json.dumps(expected, indent=1)+'\n')
    for f in sorted(to.rglob('*')):
        if f.is_file(): print(f"{f.stat().st_size:8} {f.relative_to(old)}")

if __name__=='__main__':
    if len(sys.argv)!=2 or not re.fullmatch(r'\d+\.\d+\.\d+', sys.argv[1]): sys.exit(__doc__)
    make(sys.argv[1])
