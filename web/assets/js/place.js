// When and where: dates, UTM coordinates to degrees, the sun's elevation; the columns that a model takes.
const [EQUATOR, FLATTENING, SCALE, EASTING] = [6378137, 1 / 298.257223563, 0.9996, 500000];
const radians = (degrees) => (degrees * Math.PI) / 180;
const degrees = (angle) => (angle * 180) / Math.PI;

/** UTM zone and hemisphere of an EPSG code of WGS 84, or null for another map projection. */
export function utmZone(epsg) {
  const zone = epsg % 100;
  const south = Math.floor(epsg / 100) === 327;
  return (south || Math.floor(epsg / 100) === 326) && zone >= 1 && zone <= 60 ? { zone, south } : null;
}

/** Degrees [lat, lon] of a place in metres: Krüger's series to the fourth order in n (below a millimetre). */
export function toDegrees(x, y, { zone, south }) {
  const n = FLATTENING / (2 - FLATTENING);
  const radius = (EQUATOR / (1 + n)) * (1 + n ** 2 / 4 + n ** 4 / 64);
  const beta = [
    n / 2 - (2 * n ** 2) / 3 + (37 * n ** 3) / 96 - n ** 4 / 360,
    n ** 2 / 48 + n ** 3 / 15 - (437 * n ** 4) / 1440,
    (17 * n ** 3) / 480 - (37 * n ** 4) / 840,
    (4397 * n ** 4) / 161280,
  ];
  let north = (y - (south ? 1e7 : 0)) / (SCALE * radius);
  let east = (x - EASTING) / (SCALE * radius);
  const [xi, eta] = [north, east];
  beta.forEach((b, k) => {
    north -= b * Math.sin(2 * (k + 1) * xi) * Math.cosh(2 * (k + 1) * eta);
    east -= b * Math.cos(2 * (k + 1) * xi) * Math.sinh(2 * (k + 1) * eta);
  });
  const conformal = Math.sin(north) / Math.cosh(east);
  const e = Math.sqrt(FLATTENING * (2 - FLATTENING));
  const target = Math.atanh(conformal);
  let lat = Math.asin(conformal);
  for (let step = 0; step < 8; step++) lat = Math.asin(Math.tanh(target + e * Math.atanh(e * Math.sin(lat))));
  return [degrees(lat), zone * 6 - 183 + degrees(Math.atan2(Math.sinh(east), Math.cos(north)))];
}

/** ISO week, 1 to 53, of "2018-07-04". */
export function isoWeek(day) {
  const date = new Date(`${day}T00:00Z`);
  date.setUTCDate(date.getUTCDate() + 4 - (date.getUTCDay() || 7)); // the Thursday of that week decides the year
  return Math.ceil((date - Date.UTC(date.getUTCFullYear(), 0, 1) + 86400000) / 604800000);
}

/** Degrees above the horizon, without refraction: J. Meeus, Astronomical Algorithms (1998), chapters 12, 13 and 25. */
export function sunElevation(julianDay, lat, lon) {
  const days = julianDay - 2451545;
  const T = days / 36525;
  const anomaly = radians(357.52911 + T * (35999.05029 - T * 0.0001537));
  const centre =
    (1.914602 - T * (0.004817 + T * 0.000014)) * Math.sin(anomaly) +
    (0.019993 - T * 0.000101) * Math.sin(2 * anomaly) +
    0.000289 * Math.sin(3 * anomaly);
  const node = radians(125.04 - 1934.136 * T);
  const mean = 280.46646 + T * (36000.76983 + T * 0.0003032);
  const longitude = radians(mean + centre - 0.00569 - 0.00478 * Math.sin(node));
  const tilt = 23 + (26 + (21.448 - T * (46.815 + T * (0.00059 - T * 0.001813))) / 60) / 60;
  const obliquity = radians(tilt + 0.00256 * Math.cos(node));
  const ascension = Math.atan2(Math.cos(obliquity) * Math.sin(longitude), Math.cos(longitude));
  const declination = Math.asin(Math.sin(obliquity) * Math.sin(longitude));
  const sidereal = 280.46061837 + 360.98564736629 * days + 0.000387933 * T ** 2;
  const hour = radians(sidereal + lon) - ascension;
  const sine =
    Math.sin(radians(lat)) * Math.sin(declination) +
    Math.cos(radians(lat)) * Math.cos(declination) * Math.cos(hour);
  return degrees(Math.asin(Math.min(1, Math.max(-1, sine))));
}

/**
 * The columns of a model's fields at a place; NaN is what is not known.
 * @param when {day: "2018-07-04" or "", clock: "09:52:31" or "", sun: degrees that the product states, or NaN}
 */
export function columnsAt(fields, when, lat, lon) {
  const clock = when.clock ? when.clock.split(":").map(Number) : null;
  const julian = when.day && clock
    ? 2440587.5 + Date.parse(`${when.day}T00:00Z`) / 86400000 +
      (clock[0] * 3600 + clock[1] * 60 + Math.floor(clock[2] ?? 0)) / 86400
    : NaN;
  const known = {
    week: when.day ? isoWeek(when.day) : NaN,
    hour: clock ? clock[0] : NaN,
    lat,
    lon,
    sun_elevation: Number.isFinite(when.sun) ? when.sun : sunElevation(julian, lat, lon),
  };
  return fields.map((name) => known[name] ?? NaN);
}
