"""The pods' side of lprl: conversion, training, rollout, weight sync. Knows nothing of Kubernetes objects."""
