"""One recipe a pocket model, each a command that stops and resumes: `mmlesson train clip --minutes 120`.

run.py          the loop of all recipes, and their command
checkpoint.py   the files of a training: checkpoint and log
data.py         batches of scenes
muon.py         an optimiser, which the recipe of DALL-E uses
clip.py, vqgan.py, prior.py, guide.py, dalle.py, photos.py   the recipes
photo_data.py, photo_heads.py, photo_tower.py   data, first stage and image tower of the recipe photos
"""
