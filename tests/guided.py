"""Bad input that is guided by what it reaches: atheris (libFuzzer) alters bytes and keeps those that run other parts of this package, which alone is instrumented. The promise is that of fuzzing.py.

    python tests/guided.py TARGET FOLDER [libFuzzer's options]    one process for a target; `guide` starts it
"""
import io,json,os,re,struct,subprocess,sys,tempfile,time,zipfile
from collections import Counter
from pathlib import Path

here = Path(__file__).resolve().parent
WATCHED = ('core','data','specstats','features','frontend','share','experiment','compare')  # instrumented; numba could not compile the kernels
TARGETS = ('statistics JSON','statistics npz','csv tables','preprocess.json of a model','preprocess.json of a folder')

def missing():
    "Why it cannot be run here, or None"
    try: import atheris
    except ImportError as e: return f'atheris is not importable ({e}); it has wheels for some versions of Python only'

# seeds and programs: what bytes are tried first, and what is done with bytes

def _zipped(b):
    "An archive whose sums fit: a member for each part of the bytes. libFuzzer would hardly ever hit a CRC"
    f,parts = io.BytesIO(),b.split(b'\0|\0')
    with zipfile.ZipFile(f, 'w') as z:
        for name,v in zip(('mean.npy','std.npy','count.npy','sum.npy','sum_square.npy'), parts): z.writestr(name, v)
    return f.getvalue()

def _npy(*vs):
    import numpy as np
    res = []
    for v in vs: f = io.BytesIO(); np.save(f, np.asarray(v)); res.append(f.getvalue())
    return b'\0|\0'.join(res)

def _statistics_json(fuzzing, folder):
    from specnorm_fastai import specstats
    of = specstats._digest
    def digest(arrays, header): of(arrays, header); return header.get('sha256')  # as one would who means it
    specstats._digest = digest
    import numpy as np,torch
    hist = torch.zeros(1,2,specstats._n_bins, dtype=torch.int64); hist[...,700:703] = 1
    one = lambda v: torch.full((2,1,1), v, dtype=torch.float64)
    for k,kw in enumerate((dict(std=[1.,2.], count=[3.,3.]), dict(m2=np.ones((2,1,2)), count=np.full((2,1,2), 3.), peak=(one(1.),one(2.),one(0.)), extra=(torch.zeros(1,2).double(),torch.ones(1,2).double(),hist)))):
        specstats.SpecStats([0.,1.] if not k else np.ones((2,1,2)), freqs=[10.,20.], fingerprint={'units':'dB', 'sample_rate':16000}, provenance=dict(clips=3), **kw).save(folder/f'seed{k}.json')
    return [*((folder/f'seed{k}.json').read_bytes() for k in range(2)), b'{"arrays":'*1500],lambda b: fuzzing._stats((b,'.json'), folder)

def _statistics_npz(fuzzing, folder):
    parts = [b'm'+_npy([0.,1.], [1.,2.], [3.,3.]), b'm'+_npy(0., 1.), b'm'+_npy([[0.,1.]], [[1.,2.]], 5), b'r'+fuzzing.stats_files()['a.npz']]
    return parts,lambda b: fuzzing._stats((_zipped(b[1:]) if b[:1]==b'm' else b[1:], '.npz'), folder)

def _csv_tables(fuzzing, folder):
    how = ('files','table','label','test','two','fold')
    seeds = [bytes([k])+b'filename,fold,category,test\na.wav,1,dog,0\nb.wav,2,cat,1\nc.wav,1,cat,0\nd.wav,2,dog,1\n' for k in range(len(how))]
    return [*seeds, b'\0'+b'\xef\xbb\xbf"filename";"x"\r\n"sub/e.wav";\r\n'],lambda b: fuzzing._table((b[1:],how[b[0]%len(how)] if b else 'files'), folder)

def _model_settings(fuzzing, folder):
    from specnorm_fastai import share
    files,home = fuzzing.model_files(),folder/'model'
    home.mkdir()
    for n,b in files.items(): (home/n).write_bytes(b)
    def run(b):
        try:
            o = json.loads(b)
            if isinstance(o, dict): o['sha256'] = share._own_sha(o); b = json.dumps(o).encode()
        except (ValueError,RecursionError): pass
        (home/'preprocess.json').write_bytes(b)
        return fuzzing.tried(lambda: share.load_spec_model(home), [str(home)])
    return [files['preprocess.json'], json.dumps(json.loads(files['preprocess.json'])).encode(), b'{"a":'*2000],run

def _folder_settings(fuzzing, folder):
    import numpy as np,soundfile as sf
    from specnorm_fastai.data import preprocess_audio_folder
    src,out = folder/'clips',folder/'made'
    src.mkdir()
    sf.write(src/'a.wav', np.zeros(400)+.1, 16000)
    preprocess_audio_folder(src, output_dir=out, progress=False)
    def run(b):
        (out/'preprocess.json').write_bytes(b)
        return fuzzing.tried(lambda: preprocess_audio_folder(src, output_dir=out, progress=False), [str(out)])
    return [(out/'preprocess.json').read_bytes(), b'{"sample_rate":null}', b'[]', b'['*9000],run

_made = dict(zip(TARGETS, (_statistics_json,_statistics_npz,_csv_tables,_model_settings,_folder_settings)))

def main(target, home, *options):
    "One target, until libFuzzer ends; how the inputs ended lies in counts.json"
    import atheris
    with atheris.instrument_imports(include=[f'specnorm_fastai.{m}' for m in WATCHED]): import specnorm_fastai.share,specnorm_fastai.compare
    sys.path.insert(0, str(here))
    import fuzzing,torch
    torch.set_num_threads(1)
    home,ends,at = Path(home),Counter(),[time.monotonic()]
    (home/'work').mkdir(); (home/'corpus').mkdir(); (home/'broken').mkdir()
    seeds,run = _made[target](fuzzing, home/'work')
    for k,b in enumerate(seeds): (home/'corpus'/f'seed{k}').write_bytes(b)
    words = sorted({w for b in seeds for w in re.findall(rb'"\w+"|\w{3,}', b)})[:300]
    (home/'words').write_text(''.join(f'"{"".join(f"{chr(92)}x{c:02x}" for c in w)}"\n' for w in words))
    note = lambda: (home/'counts.json').write_text(json.dumps(ends))
    def one(b):
        ends[run(b)] += 1
        if time.monotonic()-at[0]>.5: at[0] = time.monotonic(); note()
    # limits of time and memory are those of `fuzzing.tried`; libFuzzer's own alarm would be in its way
    atheris.Setup([sys.argv[0], str(home/'corpus'), f'-dict={home/"words"}', f'-artifact_prefix={home/"broken"}/', '-timeout=0', '-rss_limit_mb=0', '-malloc_limit_mb=0', '-max_len=16384',
                   '-len_control=0', *options], one)
    atheris.Fuzz()

def guide(target, seconds, log=print):
    "Drive one target for so long; what came of it, `broken` where a promise was"
    with tempfile.TemporaryDirectory() as d:
        t = time.time()
        r = subprocess.run([sys.executable,__file__,target,d,f'-max_total_time={seconds}'], capture_output=True, text=True, errors='replace', timeout=seconds+300, env={**os.environ, 'OMP_NUM_THREADS':'1', 'PYTHONPATH':os.pathsep.join([str(here.parent),os.environ.get('PYTHONPATH','')])})
        f = Path(d)/'counts.json'
        ends = json.loads(f.read_text()) if f.exists() else {}
        cov = [int(k) for k in re.findall(r'cov: (\d+)', r.stderr)]
        res = dict(tried=sum(ends.values()), ends=ends, seconds=round(time.time()-t), reached=[cov[0],cov[-1]] if cov else [0,0])
        if r.returncode or not ends:
            bad = [p.read_bytes() for p in (Path(d)/'broken').iterdir()] if (Path(d)/'broken').exists() else []
            why = re.findall(r'^.*(?:Broken|Error|ERROR|Exception).*$', r.stderr, re.M)
            res['broken'] = f'{why[:3] or r.stderr[-1500:]} {bad[:1]!r}'
        log(f'{target}: {res}')
    return res

if __name__=='__main__': main(*sys.argv[1:])
