"""The try page: a photo in, the five best classes of an exported SavedModel out."""
