"""Where the sun stands, by the standard low-accuracy formulas (0.01 degrees, years 1950 to 2050).

Source: J. Meeus, Astronomical Algorithms, 2nd edition (1998), chapters 12 (sidereal time), 13 (coordinates) and 25
(solar coordinates); the same that NOAA's solar calculator uses.
"""

import numpy as np

J2000 = 2451545.0
"""Julian day of 2000-01-01 12:00."""
DAYS_PER_CENTURY = 36525.0


def sun_elevation(julian_day: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Elevation of the sun's centre above the horizon, degrees, without refraction, as Landsat's MTL files state it.

    Args:
        julian_day: (N,) days and their fraction, UTC (which is within a second of UT1).
        lat, lon: (N,) degrees (EPSG:4326), east positive.

    Returns:
        (N,) from -90 to 90; NaN where an argument is NaN.
    """
    right_ascension, declination = sun_coordinates(julian_day)
    hour_angle = np.radians(sidereal_time(julian_day) + lon) - right_ascension
    latitude = np.radians(lat)
    sine = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)
    return np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))


def sun_coordinates(julian_day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Apparent right ascension and declination of the sun, radians (Meeus, chapter 25, "low accuracy")."""
    T = (julian_day - J2000) / DAYS_PER_CENTURY
    mean_longitude = 280.46646 + T * (36000.76983 + T * 0.0003032)
    anomaly = np.radians(357.52911 + T * (35999.05029 - T * 0.0001537))
    centre = (
        (1.914602 - T * (0.004817 + T * 0.000014)) * np.sin(anomaly)
        + (0.019993 - T * 0.000101) * np.sin(2 * anomaly)
        + 0.000289 * np.sin(3 * anomaly)
    )
    node = np.radians(125.04 - 1934.136 * T)  # of the moon's orbit: nutation follows it
    longitude = np.radians(mean_longitude + centre - 0.00569 - 0.00478 * np.sin(node))
    mean_obliquity = 23.0 + (26.0 + (21.448 - T * (46.8150 + T * (0.00059 - T * 0.001813))) / 60.0) / 60.0
    obliquity = np.radians(mean_obliquity + 0.00256 * np.cos(node))
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    return right_ascension, np.arcsin(np.sin(obliquity) * np.sin(longitude))


def sidereal_time(julian_day: np.ndarray) -> np.ndarray:
    """Mean sidereal time at Greenwich, degrees (Meeus, eq. 12.4)."""
    days = julian_day - J2000
    return 280.46061837 + 360.98564736629 * days + 0.000387933 * (days / DAYS_PER_CENTURY) ** 2
