"The folders of the experiments come out of what is published"
import csv,subprocess,sys
import pandas as pd, pytest
from test_house import _tool,root

def _esc50(path, n=2):
    "A miniature of ESC-50: three classes, of which two belong to ESC-10"
    rows = [dict(filename=f'{f}-{100*f+i}-A-{t}.wav', fold=f, target=t, category=c, esc10=t<2, src_file=100*f+i, take='A')
            for f in range(1,6) for t,c in enumerate(('dog','rain','pig')) for i in range(n)]
    (path/'audio').mkdir(parents=True); (path/'meta').mkdir()
    for r in rows: (path/'audio'/r['filename']).write_bytes(r['filename'].encode())
    pd.DataFrame(rows[::-1]).to_csv(path/'meta'/'esc50.csv', index=False)  # in an order of its own
    return path,rows[::-1]

def _digits(path, n=6, speakers=('theo','anna')):
    (path/'recordings').mkdir(parents=True)
    for d in range(10):
        for s in speakers:
            for i in range(n): (path/'recordings'/f'{d}_{s}_{i}.wav').write_bytes(f'{d}{s}{i}'.encode())
    return path

@pytest.mark.parametrize('copy', [False,True])
def test_esc10_is_its_rows_of_esc50_in_their_order(tmp_path, copy):
    m,(src,rows) = _tool('datasets'),_esc50(tmp_path/'src')
    out = tmp_path/'out'
    assert '16 clips of 2 classes, folds 1, 2, 3, 4' in m.esc10(src, out, ['4','1','2','3'], copy)
    got = list(csv.DictReader(open(out/'meta'/'esc10.csv')))
    assert got==[{k:str(v) for k,v in r.items()} for r in rows if r['esc10'] and r['fold']<5]
    assert sorted(p.name for p in (out/'audio').iterdir())==sorted(r['filename'] for r in got)
    one = out/'audio'/got[0]['filename']
    assert one.read_bytes()==got[0]['filename'].encode() and one.samefile(src/'audio'/one.name)==(not copy)
    assert m.esc10(src, tmp_path/'all').endswith('20 clips of 2 classes, folds 1, 2, 3, 4, 5')
    from specnorm_fastai.experiment import read_table
    assert read_table(out).fold.nunique()==4

def test_digits_say_who_spoke_and_which_are_test_clips(tmp_path):
    m,src = _tool('datasets'),_digits(tmp_path/'src')
    assert '60 clips of 10 digits, 50 of them test clips, speakers theo' in m.fsdd(src, tmp_path/'out', ['theo'])
    df = pd.read_csv(tmp_path/'out'/'meta'/'fsdd.csv')
    assert list(df.columns)==['filename','digit','speaker','index','is_test'] and df.filename.is_monotonic_increasing
    assert (df.filename==[f'{d}_{s}_{i}.wav' for d,s,i in zip(df.digit, df.speaker, df['index'])]).all() and (df.is_test==(df['index']<5)).all()
    from specnorm_fastai.experiment import read_table
    assert read_table(tmp_path/'out', label_col='digit', fold_col='speaker', test_col='is_test').test.sum()==50

def test_the_tables_are_those_of_the_experiments(tmp_path, esc10, fsdd):
    "As the folders that the published runs were made on, byte for byte"
    m = _tool('datasets')
    (tmp_path/'e'/'meta').mkdir(parents=True); (tmp_path/'e'/'audio').symlink_to(esc10/'audio')
    rows = list(csv.DictReader(open(esc10/'meta'/'esc10.csv')))
    pd.DataFrame([*rows,{**rows[0], 'filename':'1-1-A-49.wav', 'esc10':'False'}]).to_csv(tmp_path/'e'/'meta'/'esc50.csv', index=False)
    (tmp_path/'f').mkdir(); (tmp_path/'f'/'recordings').symlink_to(fsdd/'audio')
    m.esc10(tmp_path/'e', tmp_path/'E', ['1','2','3','4'], copy=True)
    m.fsdd(tmp_path/'f', tmp_path/'F', ['george','jackson','lucas','nicolas','theo'], copy=True)
    assert (tmp_path/'E'/'meta'/'esc10.csv').read_bytes()==(esc10/'meta'/'esc10.csv').read_bytes()
    assert (tmp_path/'F'/'meta'/'fsdd.csv').read_bytes()==(fsdd/'meta'/'fsdd.csv').read_bytes()

def test_what_is_missing_is_named_and_nothing_is_written(tmp_path):
    m = _tool('datasets')
    src,rows = _esc50(tmp_path/'e')
    digits,out = _digits(tmp_path/'d'),tmp_path/'out'
    def refused(f, says, *args, to=out):
        with pytest.raises(ValueError, match=says): f(*args[:1], to, *args[1:])
        assert not out.exists()
    refused(m.esc10, 'expected the unpacked ESC-50, there is no such folder', tmp_path/'no')
    refused(m.esc10, 'expected the unpacked ESC-50, there is no audio', digits)
    refused(m.fsdd, 'expected a checkout .* there is no recordings', src)
    refused(m.esc10, r"--folds: expected some of \['1', '2', '3', '4', '5'\], .* got '6'", src, ['1','6'])
    refused(m.fsdd, r"--speakers: expected some of \['anna', 'theo'\], .* got 'bob'", digits, ['bob'])
    refused(m.esc10, 'expected a new or an empty folder', src, to=src)
    refused(m.fsdd, 'expected a new or an empty folder', digits, to=digits/'recordings'/'0_theo_0.wav')
    (src/'audio'/rows[-1]['filename']).unlink()
    refused(m.esc10, f"1 of 20 clips are missing: {rows[-1]['filename']}", src)
    (digits/'recordings'/'3_theo_2.wav').unlink()
    refused(m.fsdd, 'expected 6 recordings of each digit and speaker, 1 are missing: 3_theo_2.wav', digits)
    m.fsdd(digits, tmp_path/'anna', ['anna'])  # hers are all there
    (digits/'recordings'/'three.wav').touch()
    refused(m.fsdd, 'expected names such as 7_jackson_32.wav, got three.wav', digits)
    pd.read_csv(src/'meta'/'esc50.csv').drop(columns='take').to_csv(src/'meta'/'esc50.csv', index=False)
    refused(m.esc10, "there is no 'take'", src)

def _row(change):
    "Write one row of the table of ESC-50 anew"
    def spoil(src):
        f = src/'meta'/'esc50.csv'
        head,first,*rest = f.read_text().splitlines()
        f.write_text('\n'.join([head,*change(first),*rest])+'\n')
    return spoil

_bad = {
    'short': (_row(lambda l: [l.rpartition(',')[0]]), 'esc50.csv: expected 7 fields in row 2, got fewer'),
    'long': (_row(lambda l: [l,l+',x']), 'esc50.csv: expected 7 fields in row 3, got more'),
    'latin-1': (lambda s: (s/'meta'/'esc50.csv').write_bytes('filename,fold\nCafé'.encode('latin-1')), 'esc50.csv: expected a table in UTF-8'),
    'header only': (lambda s: (s/'meta'/'esc50.csv').write_text((s/'meta'/'esc50.csv').read_text().splitlines()[0]), "expected rows whose column 'esc10' is True, there is none"),
    'empty': (lambda s: (s/'meta'/'esc50.csv').write_text(''), "there is no 'filename'"),
    'outside': (_row(lambda l: ['../meta/esc50.csv,1,0,dog,True,1,A']), "expected names of files in audio/, got '../meta/esc50.csv'"),
    'absolute': (_row(lambda l: ['/etc/hosts,1,0,dog,True,1,A']), "expected names of files in audio/, got '/etc/hosts'"),
    'no name': (_row(lambda l: [',1,0,dog,True,1,A']), "expected names of files in audio/, got ''"),
    'twice': (_row(lambda l: ['1-100-A-0.wav,1,0,dog,True,1,A']), "expected each file once, got '1-100-A-0.wav' more than once"),
    'no sound': (lambda s: (s/'audio'/'1-100-A-0.wav').write_bytes(b''), 'expected sound in each clip, 1 are empty: 1-100-A-0.wav')}

@pytest.mark.parametrize('name', _bad)
def test_a_table_that_is_not_esc50s_is_refused_before_anything_is_written(tmp_path, name):
    (src,_),(spoil,says) = _esc50(tmp_path/'src'),_bad[name]
    spoil(src)
    with pytest.raises(ValueError, match=says): _tool('datasets').esc10(src, tmp_path/'out', copy=True)
    assert sorted(p.name for p in tmp_path.iterdir())==['src']

@pytest.mark.parametrize('name,says', [('0_anna_00.wav','expected names such as 7_jackson_32.wav, got 0_anna_00.wav'), ('٣_anna_0.wav','expected names such as .* got ٣_anna_0.wav'),
    ('0_anna_0.wav','expected sound in each clip, 1 are empty: 0_anna_0.wav'), ('0_anna_999999999999.wav','expected 1000000000000 recordings .* 19999999999879 are missing: 0_anna_6.wav')])
def test_two_names_of_one_recording_and_no_sound_are_refused(tmp_path, name, says):
    src = _digits(tmp_path/'src')
    (src/'recordings'/name).write_bytes(b'')
    with pytest.raises(ValueError, match=says): _tool('datasets').fsdd(src, tmp_path/'out')
    assert not (tmp_path/'out').exists()

def test_the_command_line_ends_in_one_line_or_a_message(tmp_path):
    src,_ = _esc50(tmp_path/'src')
    run = lambda *args: subprocess.run([sys.executable, '-I', str(root/'tools'/'datasets.py'), *map(str, args)], capture_output=True, text=True)
    p = run('esc10', src, tmp_path/'out', '--folds', 1, 2, '--copy')
    assert p.returncode==0 and p.stdout==f"{tmp_path/'out'}: 8 clips of 2 classes, folds 1, 2\n"
    p = run('esc10', src, tmp_path/'out')
    assert p.returncode==1 and p.stderr==f"{tmp_path/'out'}: expected a new or an empty folder, it holds something\n"
    assert '--speakers' in run('fsdd', '--help').stdout and 'esc10 ESC50 OUT' in run('--help').stdout
