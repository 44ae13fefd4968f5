"""One colour per class, that of the maps: colours that can be told apart with red-green colour blindness as well."""

from scenes.products.land_cover import class_colours


def colours(classes: tuple[str, ...]) -> list[str]:
    """`#rrggbb` of every class."""
    of_maps = class_colours(classes)
    return ["#{:02x}{:02x}{:02x}".format(*of_maps[index][:3]) for index in range(len(classes))]
