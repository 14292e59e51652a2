"The benchmarks run, the written page is what the kept numbers give, and an import stays light. No time decides anything here"
import json,subprocess,sys
from pathlib import Path
import pytest, torch

root = Path(__file__).resolve().parent.parent
if not (root/'benchmarks').is_dir(): pytest.skip('the benchmarks are not in this copy', allow_module_level=True)
sys.path.insert(0, str(root))
from benchmarks import table,timing
from benchmarks.__main__ import keep,main,measure,options
from benchmarks.rivals import PublishedRecorder

needs_torchaudio = ('normalize','logmel','datapath','training')

@pytest.mark.parametrize('part', [pytest.param(p, marks=pytest.mark.filterwarnings('ignore')) for p in table.parts])
def test_a_part_runs_on_tiny_inputs_and_makes_a_table(part, tmp_path):
    if part in needs_torchaudio: pytest.importorskip('torchaudio')
    n = torch.get_num_threads()
    try: res = measure(part, options(tiny=True), threads=n)
    finally: torch.set_num_threads(n)
    assert res['rows'] and all({'name','what','skipped'}<=set(r) or {'name','points'}<=set(r) or {'name','batches'}<=set(r) or {'name','ours','rounds'}<=set(r) for r in res['rows'])
    keep(res, tmp_path)
    assert json.loads((tmp_path/f'{part}.json').read_text())['machine']['cores']>=1
    assert f'## {part}' in table.text(tmp_path) and str(tmp_path) not in table.text(tmp_path)

def test_the_page_is_what_the_kept_numbers_give():
    assert (root/'benchmarks'/'RESULTS.md').read_text()==table.text(), 'run python -m benchmarks --write'
    for f in table.kept.glob('*.json'):
        d = json.loads(f.read_text())
        assert d['part']==f.stem and d['about'].strip() and '/' not in d['command'].split('--data')[-1]  # no path of a machine
        for r in d['rows']:
            t = r.get('targets')
            if not t: continue
            told = dict(at_most=lambda v: r['to_limit'][1]<=v, at_least=lambda v: r['to_rival'][1]>=v, within=lambda v: r['ours'][1]<=v, batches=lambda v: r['batches']<=v)
            ok = [told[k](v) for k,v in t.items()]
            assert r['met']==all(ok), (f.stem, r['name'])

def test_candidates_take_turns_and_ratios_are_taken_within_rounds():
    seen = []
    t = timing.interleaved({k:lambda k=k: seen.append(k) for k in 'abc'}, rounds=3, warmup=1)
    assert seen==list('abc')*4 and all(len(v)==3 for v in t.values())
    r = timing.row('n', 'w', dict(a=[1.,2.,4.], b=[1.,1.,1.], c=[10.,20.,40.]), 'a', 'b', 'c', at_most=2, at_least=15)
    assert r['to_limit']==[1.5,2.,3.] and r['to_rival'][1]==10 and r['met'] is False
    assert timing.row('n', 'w', dict(a=[1.]), 'a')['met'] is None and timing.row('n', 'w', dict(a=[1.]), 'a', within=1)['met']

def test_fewer_rounds_where_the_budget_is_spent_but_never_less_than_the_least():
    assert len(timing.interleaved({'a':lambda: None}, rounds=9, budget=0, least=2)['a'])==2

def test_the_rival_recorder_finds_the_same_mean_where_batches_are_equal():
    x = torch.randn(4,8,1,5,7, dtype=torch.float64)*3+torch.arange(4.).view(4,1,1,1,1)
    r = PublishedRecorder((0,1,3))
    for b in x: r.update(b)
    y = x.flatten(0,1)
    assert torch.allclose(r.mean, y.mean((0,1,3), keepdim=True)) and torch.allclose(r.std, y.std((0,1,3), keepdim=True), rtol=.02)  # it weighs sample variances by items

def test_the_rival_pipeline_does_the_same_work(synthetic):
    "The same spectrograms from the same clips: what differs is how long they take"
    pytest.importorskip('torchaudio')
    from benchmarks import clips
    from benchmarks.datapath import our_block
    from benchmarks.rivals import ToDB,published_block
    df = clips.table(synthetic, 24)
    a,b = (f(synthetic, *args, seconds=.5, n_valid=8).dataloaders(df, bs=8, num_workers=0).valid.one_batch()[0].as_subclass(torch.Tensor) for f,args in ((our_block,()),(published_block,(ToDB(),))))
    assert a.shape==b.shape==(8,1,201,41)
    a,b = (v-v.mean((1,2,3), keepdim=True) for v in (a,b))  # the published code brings a batch to one level, ours each clip
    assert (a-b).abs().median()<.5  # dB; the crops are a sample apart at most

def test_wrong_options_are_told(capsys):
    for args in (['--only','speed'],['--data',str(root/'tests')],['--threads','0']):
        with pytest.raises(SystemExit) as e: main(args)
        assert e.value.code==2
    assert 'expected a folder with audio/' in capsys.readouterr().err

def test_an_import_brings_nothing_that_fastai_has_not_brought():
    "What only some need, such as librosa, is imported where it is used"
    code = """import sys
import fastai.vision.all
before = set(sys.modules)
import specnorm_fastai.all
print(sorted({m.split('.')[0] for m in set(sys.modules)-before}-{'specnorm_fastai'}-set(sys.stdlib_module_names)))
print([m for m in ('librosa','numba','soundfile','soxr','torchaudio','nnAudio','dask','onnx') if m in sys.modules])"""
    r = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, cwd=root)
    assert r.returncode==0 and r.stdout.split('\n')[:2]==['[]','[]'], r.stdout+r.stderr[-2000:]

def test_the_commands_answer_for_help_without_torch():
    code = "import sys\nfrom specnorm_fastai import cli\nfor f in (cli.compare,cli.stats,cli.drift):\n    try: f(['--help'])\n    except SystemExit as e: assert not e.code\nassert not {'torch','fastai','numpy','pandas'} & set(sys.modules)"
    r = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, cwd=root)
    assert r.returncode==0, r.stderr[-2000:]
