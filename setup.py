"Hands settings.ini to setuptools; everything else is in pyproject.toml"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

cfg = ConfigParser(delimiters=['='], interpolation=None)
with open(Path(__file__).parent/'settings.ini', encoding='utf-8') as f: cfg.read_file(f)
d = {k:v.split() for k,v in cfg['DEFAULT'].items()}
end = '_requirements'
setup(keywords=d['keywords'], install_requires=d['requirements'],
    extras_require={k[:-len(end)]:v for k,v in d.items() if k.endswith(end)},
    # the nbdev entry lets other projects' docs link to ours
    entry_points=dict(console_scripts=d['console_scripts'], nbdev=['specnorm_fastai=specnorm_fastai._modidx:d']))
