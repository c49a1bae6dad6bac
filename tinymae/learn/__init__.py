"""The course: lessons to read and run, exercises to complete, and checks that explain what is wrong with a solution."""
