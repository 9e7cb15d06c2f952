"""Which TiDB answers; asking changes nothing there."""

from __future__ import annotations

import math

import pymysql

from backends.tidb.connection import explain, open_connection, parse_url
from backends.tidb.index import has_tiflash
from backends.tidb.schema import version_of


def of_server(url: str, within_s: float) -> str:
    """``TiDB 8.5.4, with TiFlash``, or what else answers there."""
    place = parse_url(url)
    try:
        # PyMySQL takes whole seconds.
        seconds = max(1, math.ceil(within_s))
        with open_connection(place, timeout_s=seconds, connect_timeout_s=seconds) as connection:
            version = version_of(connection)
            if version is None:
                return f"no TiDB: {connection.server_version}"
            return f"TiDB {'.'.join(map(str, version))}" + (", with TiFlash" if has_tiflash(connection) else "")
    except (pymysql.Error, OSError) as error:
        raise explain(error, place.address) from error
