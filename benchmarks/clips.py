"Folders of clips in ESC-50's layout that the parts read"
from pathlib import Path

import pandas as pd

def synthetic(to, n, seconds=5., sr=44100):
    "Synthetic clips as wav"
    from specnorm_fastai.data import synthetic_audio
    return synthetic_audio(to, n=n, seconds=seconds, sr=sr)

def converted(path, to, suffix, sr=None):
    "The same clips in another format, at their own rate or at `sr`; 16 bits as wav"
    import soundfile as sf
    path,to = Path(path),Path(to)
    (to/'audio').mkdir(parents=True); (to/'meta').mkdir()
    df = table(path)
    for f in df.filename:
        x,rate = sf.read(path/'audio'/f, dtype='float32', always_2d=True)
        if sr is not None and sr!=rate:
            import soxr
            x,rate = soxr.resample(x, rate, sr),sr
        sf.write(to/'audio'/Path(f).with_suffix(suffix), x.clip(-1, 1), rate)
    df['filename'] = [str(Path(f).with_suffix(suffix)) for f in df.filename]
    df.to_csv(to/'meta'/'clips.csv', index=False)
    return to

def table(path, n=None):
    "Names and classes of the clips in a folder"
    df = pd.read_csv(next((Path(path)/'meta').glob('*.csv')))
    return (df if n is None else df.head(n)).reset_index(drop=True)
