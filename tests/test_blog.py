"The published experiment's code runs"
import pandas as pd, pytest

@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('data', ['synthetic','esc10'])
def test_the_published_code_runs(request, data):
    import blog
    path = request.getfixturevalue(data)
    df = pd.read_csv(next((path/'meta').glob('*.csv')))
    blog.run(path, df.groupby(['fold','category']).head(1).reset_index(drop=True) if data=='esc10' else df, 1)
