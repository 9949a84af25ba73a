import datetime
import json

from s2sr.data.catalogue.product import Product


def test_what_real_items_say_under_their_names(shared_data):
    folder = shared_data / "stac_items"
    earth_search = Product(json.loads((folder / "item-collection.json").read_text())["features"][0])
    assert (earth_search.platform, earth_search.orbit, earth_search.tile) == ("S2A", 98, "13TDE")
    assert (earth_search.baseline, earth_search.epsg) == (5.1, 32613)
    planetary = json.loads((folder / "two-sentinel-2-items.json").read_text())
    planetary = Product(planetary["features"][0] if "features" in planetary else planetary[0])
    assert (planetary.platform, planetary.orbit, planetary.tile) == ("S2B", 98, "13TDE")
    assert (planetary.baseline, planetary.epsg) == (5.11, 32613)
    assert planetary.local_day == datetime.date(2024, 8, 25)
